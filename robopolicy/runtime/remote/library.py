"""The websockets library: whether it is there, and what it may log."""

from __future__ import annotations

import logging

from robopolicy.core.errors import MissingDependencyError


def require_websockets() -> None:
    try:
        import websockets  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "remote inference needs websockets: pip install 'robopolicy[remote]'"
        ) from error


def quiet_logger() -> logging.Logger:
    """For the library: its own lines show headers, and with them the token; what matters is logged here."""
    quiet = logging.getLogger("robopolicy.remote.websockets")
    quiet.disabled = True
    return quiet

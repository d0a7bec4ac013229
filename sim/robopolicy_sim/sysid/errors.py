"""What identification refuses."""

from __future__ import annotations

from robopolicy.core.errors import RobopolicyError


class IdentificationError(RobopolicyError):
    """Logs from which nothing can be learned: too short, no motion, or not what they say they are."""

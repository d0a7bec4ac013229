"""Inference on another machine, over a websocket: ``robopolicy serve`` there, ``RemotePolicy`` here.

Binary frames of fixed records that both sides derive from the policy's specs; no pickle. Needs the extra
``remote``; names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robopolicy.runtime.remote.background import serving
    from robopolicy.runtime.remote.layout import WireLayout
    from robopolicy.runtime.remote.messages import MessageError
    from robopolicy.runtime.remote.policy import RemoteEndpoint, RemotePolicy, connect
    from robopolicy.runtime.remote.security import read_token
    from robopolicy.runtime.remote.server import PolicyServer, ServerConfig

_HOMES = {
    "MessageError": "messages",
    "WireLayout": "layout",
    "PolicyServer": "server",
    "RemoteEndpoint": "policy",
    "RemotePolicy": "policy",
    "ServerConfig": "server",
    "connect": "policy",
    "read_token": "security",
    "serving": "background",
}

__all__ = [
    "MessageError",
    "PolicyServer",
    "RemoteEndpoint",
    "RemotePolicy",
    "ServerConfig",
    "WireLayout",
    "connect",
    "read_token",
    "serving",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""What a run measured, unreadable until the end: latencies and step counts tell policies apart.

This keeps a person honest who looks into the file. It is no secret: whoever holds the seed and this code can
open it, and could as well draw the order again.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from robopolicy.core.errors import ConfigError

PAD = 4096  # bytes; the length would tell long runs from short ones


def seal(tree: Any, key: str) -> str:
    """JSON as text that says nothing without the key."""
    plain = json.dumps(tree, separators=(",", ":")).encode()
    plain += b" " * (-len(plain) % PAD)
    return base64.b64encode(_masked(plain, key)).decode()


def unseal(text: str, key: str) -> Any:
    """What was sealed; ConfigError with another key, or where the text was changed."""
    try:
        return json.loads(_masked(base64.b64decode(text, validate=True), key))
    except ValueError as error:
        raise ConfigError("a sealed record does not open: another seed, or a changed file") from error


def _masked(data: bytes, key: str) -> bytes:
    mask = hashlib.shake_256(key.encode()).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, mask))

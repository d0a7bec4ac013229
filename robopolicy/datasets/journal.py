"""What an episode's recorder writes as it goes, so that a crash costs at most what was not synced yet.

Records are ``length, crc32c, payload``; the first bad one ends the journal. A payload is a JSON header
(what follows: a signal's declaration, or so many samples of it) and raw bytes. Camera frames are not in
the journal: they lie encoded in the file that becomes the shard, and the journal holds their places.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c

FILE = "journal"
_HEAD = struct.Struct("<III")  # payload bytes, their crc32c, bytes of the JSON header


def record(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One record."""
    text = json.dumps(header, separators=(",", ":")).encode()
    payload = text + body
    return _HEAD.pack(len(payload), google_crc32c.value(payload), len(text)) + payload


def records(data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Header and body of every whole record; stops at the first that was not written whole."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, crc, text = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if not text or len(payload) < length or text > length or google_crc32c.value(payload) != crc:
            return  # a tail of zeros, as a power cut leaves it, has no header
        yield json.loads(payload[:text]), payload[text:]
        at += _HEAD.size + length

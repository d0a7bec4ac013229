"""A latest-wins mailbox in shared memory: one writer, any readers, nobody waits."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

_HEAD = struct.Struct("=QQ")  # sequence, CRC-32 of the payload
_RETRIES = 3


class Slot:
    """A seqlock over one record of a structured dtype.

    The writer makes the sequence odd, writes, and makes it even. The checksum catches what that
    misses on processors that reorder stores, since Python has no memory fence.

    Args:
        buffer: the whole segment.
        offset: where this slot begins.
        dtype: of the record.
    """

    def __init__(self, buffer: memoryview, offset: int, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._buffer, self._offset = buffer, offset
        self._start, self._stop = offset + _HEAD.size, offset + _HEAD.size + dtype.itemsize

    @staticmethod
    def size(dtype: np.dtype[Any]) -> int:
        """Bytes a slot takes, rounded up so that the next one is aligned."""
        return -(-(_HEAD.size + dtype.itemsize) // 64) * 64

    @property
    def sequence(self) -> int:
        """Even at rest, two more for each write; 0 before the first."""
        return int(_HEAD.unpack_from(self._buffer, self._offset)[0])

    def write(self, record: np.ndarray[Any, Any]) -> None:
        payload = record.tobytes()
        sequence = self.sequence | 1  # a writer that died half way left it odd
        _HEAD.pack_into(self._buffer, self._offset, sequence, 0)
        self._buffer[self._start : self._stop] = payload
        _HEAD.pack_into(self._buffer, self._offset, sequence + 1, zlib.crc32(payload))

    def read(self, newer_than: int = 0) -> tuple[int, np.ndarray[Any, Any]] | None:
        """Sequence and record, shape (); None when there is nothing newer, or it is being written."""
        for _ in range(_RETRIES):
            sequence, checksum = _HEAD.unpack_from(self._buffer, self._offset)
            if sequence <= newer_than:
                return None
            if sequence % 2:
                continue
            payload = bytes(self._buffer[self._start : self._stop])
            if self.sequence == sequence and zlib.crc32(payload) == checksum:
                return int(sequence), np.frombuffer(payload, dtype=self.dtype)[0]
        return None

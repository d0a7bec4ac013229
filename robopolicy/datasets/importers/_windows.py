"""Frames of a foreign array, every chunk of it decoded once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers._boundary import MAX_CHUNK_BYTES, foreign


class FrameArray:
    """An array whose first axis counts frames. Every chunk is decoded once as long as ranges go forward.

    Memory: the range that is read, out to whole chunks, and the last chunk of it.

    Args:
        load: ``load(first, last)`` reads those frames with the foreign library; whatever it raises becomes
            ImportFormatError.
        chunk: frames in one chunk of the source; 1 when it has none.
        where: file and array, for messages.
    Raises:
        ImportFormatError: not frames of numbers, or chunks too large to decode.
    """

    def __init__(
        self,
        load: Callable[[int, int], Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunk: tuple[int, ...],
        where: str,
    ) -> None:
        if dtype.kind not in "biuf" or not shape or 0 in chunk:
            raise ImportFormatError(f"{where} is {dtype} {shape}, not frames of numbers")
        frame_bytes = max(math.prod(shape[1:]) * dtype.itemsize, 1)
        decoded = max(math.prod(chunk) * dtype.itemsize, frame_bytes * chunk[0])
        if decoded > MAX_CHUNK_BYTES:
            raise ImportFormatError(f"{where}: chunks of {chunk} are larger than {MAX_CHUNK_BYTES} bytes")
        self.shape, self.dtype, self.chunk, self.where = shape, dtype, chunk, where
        self._load = load
        self._held: tuple[int, NDArray[Any]] | None = None  # the last chunk: its first frame, its frames

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Frames start..stop; ImportFormatError names the array when they cannot be decoded."""
        rows = self.chunk[0]
        first, last = start // rows * rows, min(-(-stop // rows) * rows, len(self))
        if self._held is not None and self._held[0] == first:
            values = self._held[1]
            if first + len(values) < last:
                values = np.concatenate([values, self._get(first + len(values), last)])
        else:
            self._held = None
            values = self._get(first, last)
        tail = (last - 1) // rows * rows
        if rows > 1 and (self._held is None or self._held[0] != tail):
            self._held = (tail, values[tail - first :].copy())  # a view would keep all of it
        return values[start - first : stop - first]

    def _get(self, first: int, last: int) -> NDArray[Any]:
        with foreign(self.where, "cannot be decoded"):
            values = np.asarray(self._load(first, last))
        if values.shape != (last - first, *self.shape[1:]):
            raise ImportFormatError(f"{self.where}: frames from {first} have shape {values.shape}")
        return values

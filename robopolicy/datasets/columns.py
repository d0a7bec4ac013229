"""One observation of all sampled steps: held as an array, or decoded when asked for."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import StoreError
from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets import codecs
from robopolicy.datasets.reader import EpisodeReader, decode_frame
from robopolicy.datasets.storage import Storage


class Column(Protocol):
    """Row i is what step i sees."""

    @property
    def memory_bytes(self) -> int: ...

    def fill(self, rows: slice, reader: EpisodeReader, signal: str, samples: NDArray[np.int64]) -> None:
        """Set ``rows`` to these samples of a signal."""
        ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(*rows.shape, *shape), a new array."""
        ...


def plan(specs: Specs, total: int, memory_bytes: int, storage: Storage, threads: int) -> dict[str, Column]:
    """Columns for ``total`` steps; the small ones get the memory first."""
    planned: dict[str, Column] = {}
    left = memory_bytes
    for key, spec in sorted(specs.observation.items(), key=lambda item: math.prod(item[1].shape)):
        needed = total * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        if spec.kind == "state" or needed <= left:
            value, left = new_array((total, *spec.shape), spec.dtype, left)
            planned[key] = Held(value, spec.kind)
        else:
            planned[key] = OnDemand(spec, total, storage, threads)
    return {key: planned[key] for key in specs.observation}


def new_array(shape: tuple[int, ...], dtype: str, memory_bytes: int) -> tuple[NDArray[Any], int]:
    """An array in memory when it fits, else in a temporary file; and the memory that is left."""
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed <= memory_bytes:
        return np.empty(shape, dtype), memory_bytes - needed
    with tempfile.TemporaryFile() as file:  # the mapping keeps it open; it has no name to clean up
        if hasattr(os, "posix_fallocate"):  # not on macOS
            try:  # a full disk shows here; found out through the mapping it would kill the process
                os.posix_fallocate(file.fileno(), 0, needed)
            except OSError as error:
                folder = tempfile.gettempdir()
                raise StoreError(f"{needed} bytes of states do not fit {folder}: {error.strerror}") from error
        return np.memmap(file, dtype, "w+", shape=shape), memory_bytes


class Held:
    """Values in memory, or in a temporary file where they are too many."""

    def __init__(self, value: NDArray[Any], kind: str) -> None:
        self.value, self.kind = value, kind

    @property
    def memory_bytes(self) -> int:
        return 0 if isinstance(self.value, np.memmap) else self.value.nbytes

    def fill(self, rows: slice, reader: EpisodeReader, signal: str, samples: NDArray[np.int64]) -> None:
        if self.kind == "state":
            self.value[rows] = reader.values(signal)[samples]
        else:
            self.value[rows] = reader.frames(signal).read(reader.storage, samples)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(self.value).take(rows, axis=0, mode="clip")


class OnDemand:
    """Camera frames, read and decoded when sampled; memory holds where each one lies (24 bytes a step)."""

    def __init__(self, spec: ArraySpec, total: int, storage: Storage, threads: int) -> None:
        self._spec, self._storage = spec, storage
        self._files: list[tuple[str, codecs.Decode, str]] = []
        self._lock = threading.Lock()
        self._file = np.zeros(total, np.int32)
        self._frame = np.zeros(total, np.int32)
        self._places = np.zeros((total, 2), np.int64)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @property
    def memory_bytes(self) -> int:
        return self._file.nbytes + self._frame.nbytes + self._places.nbytes

    def fill(self, rows: slice, reader: EpisodeReader, signal: str, samples: NDArray[np.int64]) -> None:
        frames = reader.frames(signal)
        self._frame[rows] = frames.first + samples
        self._places[rows] = frames.places[samples]
        with self._lock:
            self._file[rows] = len(self._files)
            self._files.append((frames.file, frames.decode, frames.where))

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        flat = rows.reshape(-1)
        out = np.empty((len(flat), *self._spec.shape), self._spec.dtype)
        files = [self._files[i] for i in self._file[flat].tolist()]
        places = self._places[flat].tolist()
        ranges = [(file, start, start + size) for (file, _, _), (start, size) in zip(files, places)]
        data = self._storage.read_ranges(ranges)

        def decode(part: range) -> None:
            for row in part:
                _, decoder, where = files[row]
                decode_frame(decoder, data[row], out[row], f"{where}, frame {self._frame[flat[row]]}")

        if self._pool is None:
            decode(range(len(flat)))
        else:  # one part per thread: handing over single frames costs more than decoding them
            list(self._pool.map(decode, [range(i, len(flat), self._threads) for i in range(self._threads)]))
        return out.reshape(*rows.shape, *self._spec.shape)

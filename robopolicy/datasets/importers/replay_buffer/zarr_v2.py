"""A foreign Zarr v2 archive, folder or zip, decoded here chunk by chunk.

Not through the zarr package: it hands damaged chunks to Blosc, which then reads past their end and takes the
process down. Here a chunk's own header must fit the array before anything is decoded.

Source: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers._boundary import foreign
from robopolicy.datasets.importers._windows import FrameArray
from robopolicy.datasets.importers.replay_buffer.chunk_codecs import decoder

Shape = tuple[int, ...]
ABSENT = 16  # chunks that may be absent whatever the number there is


class Archive:
    """An opened archive. Use ``open_archive``."""

    def __init__(
        self, path: Path, files: set[str], headers: dict[str, bytes], read: Callable[[str], bytes]
    ) -> None:
        self.path = path
        self._files, self._headers, self._read = files, headers, read
        self._separators: dict[str, str] = {}

    def arrays(self, group: str) -> list[str]:
        """Names of the arrays directly in a group."""
        cut = [f[len(group) + 1 :].split("/") for f in self._headers if f.startswith(f"{group}/")]
        return sorted(parts[0] for parts in cut if parts[1:] == [".zarray"])

    def array(self, name: str) -> FrameArray:
        """One array; its header is checked before anything is decoded.

        Raises:
            ImportFormatError: damaged header, not plain numbers, or an unknown codec.
            MissingDependencyError: an image codec without the ``imagecodecs`` package.
        """
        where = f"{self.path}: {name}"
        if f"{name}/.zarray" not in self._headers:
            raise ImportFormatError(f"{self.path} has no {name}")
        header, shape, chunk, dtype = _parse(self._headers[f"{name}/.zarray"], where)
        self._separators[name] = header.get("dimension_separator", ".")
        decode = decoder(header, math.prod(chunk) * dtype.itemsize, where)

        def read_chunk(index: Shape) -> NDArray[Any]:
            key = self._key(name, index)
            if key not in self._files:  # ``missing_frames`` told, and its episodes are left out
                return np.zeros(chunk, dtype)
            return np.frombuffer(decode(self._read(key)), dtype).reshape(chunk, order=header["order"])

        def load(first: int, last: int) -> NDArray[Any]:
            return _join(read_chunk, first, (last - first, *shape[1:]), chunk, dtype)

        return FrameArray(load, shape, dtype, chunk, where)

    def missing_frames(self, name: str, array: FrameArray) -> list[tuple[int, int]]:
        """Frame ranges of chunks without a file, which Zarr would read as fill values.

        Raises:
            ImportFormatError: far more chunks are absent than present; the header is damaged.
        """
        grid = [-(-size // chunk) for size, chunk in zip(array.shape, array.chunk)]
        present = sum(f.startswith(f"{name}/") for f in self._files)
        if math.prod(grid) > 2 * present + ABSENT:  # never walk the grid of an absurd shape
            raise ImportFormatError(
                f"{array.where}: {array.shape} in chunks of {array.chunk} needs {math.prod(grid)} files; "
                f"there are at most {present}"
            )
        rows = sorted({index[0] for index in np.ndindex(*grid) if self._key(name, index) not in self._files})
        return [(r * array.chunk[0], min((r + 1) * array.chunk[0], array.shape[0])) for r in rows]

    def _key(self, name: str, index: Shape) -> str:
        return f"{name}/{self._separators[name].join(map(str, index))}"


def _parse(text: bytes, where: str) -> tuple[dict[str, Any], Shape, Shape, np.dtype[Any]]:
    """An array's header, shape, chunk shape and dtype."""
    with foreign(where, "has a damaged header"):
        header = json.loads(text)
        shape, chunk, dtype = tuple(header["shape"]), tuple(header["chunks"]), np.dtype(header["dtype"])
        fits = all(type(n) is int and n >= 0 for n in (*shape, *chunk)) and len(shape) == len(chunk)
        known = header["zarr_format"] == 2 and header["order"] in ("C", "F")
        if not fits or not known or header.get("dimension_separator", ".") not in (".", "/"):
            raise ImportFormatError(f"{where} has a damaged header: {header}")
    return header, shape, chunk, dtype


def _join(
    read_chunk: Callable[[Shape], NDArray[Any]],
    first: int,
    shape: Shape,
    chunk: Shape,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Frames ``first``, a chunk's first one, and those after it; ``shape`` is that of the result."""
    out = np.empty(shape, dtype)
    grids = [range(-(-size // step)) for size, step in zip(shape, chunk)]
    for index in itertools.product(*grids):
        places = [slice(i * step, min((i + 1) * step, size)) for i, step, size in zip(index, chunk, shape)]
        inside = tuple(slice(0, place.stop - place.start) for place in places)
        out[tuple(places)] = read_chunk((first // chunk[0] + index[0], *index[1:]))[inside]
    return out


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a Zarr v2 folder or zip to read.

    Raises:
        ImportFormatError: nothing there, not a zip, a name twice in it, or no Zarr v2 group.
    """
    if not path.exists():
        raise ImportFormatError(f"no such file or folder: {path}")
    read: Callable[[str], bytes]
    with contextlib.ExitStack() as stack:
        if path.is_dir():
            files, read = _list_folder(path), partial(_read_file, path)
        else:
            with foreign(str(path), "is not a readable zip archive"):
                archive = stack.enter_context(zipfile.ZipFile(path))
            files, read = _list_zip(path, archive), archive.read
        if ".zgroup" not in files:
            raise ImportFormatError(f"{path} is not a readable Zarr v2 archive: it has no .zgroup")
        headers = {}
        for name in sorted(f for f in files if f.endswith("/.zarray")):
            with foreign(f"{path}: {name}"):
                headers[name] = read(name)
        yield Archive(path, files, headers, read)


def _read_file(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


def _list_folder(path: Path) -> set[str]:
    with foreign(str(path)):
        return {Path(top, f).relative_to(path).as_posix() for top, _, names in os.walk(path) for f in names}


def _list_zip(path: Path, archive: zipfile.ZipFile) -> set[str]:
    counts = Counter(archive.namelist())
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ImportFormatError(f"{path} holds {twice[0]} more than once")
    return set(counts)

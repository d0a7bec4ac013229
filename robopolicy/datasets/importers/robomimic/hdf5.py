"""HDF5 files of others: every call into the library ends in a value or in ImportFormatError."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ImportFormatError, MissingDependencyError
from robopolicy.datasets.importers._boundary import foreign
from robopolicy.datasets.importers._windows import FrameArray


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An ``h5py.File`` to read.

    Raises:
        ImportFormatError: not an HDF5 file, cut short, or damaged; MissingDependencyError: no ``h5py``.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(f"{path} is HDF5: pip install 'robopolicy[formats]'") from error
    if not path.is_file():
        raise ImportFormatError(f"{path} is no file" if path.exists() else f"no such file or folder: {path}")
    with foreign(str(path), "is not a readable HDF5 file"):
        file = h5py.File(path, "r")
    try:
        yield file
    finally:
        with contextlib.suppress(Exception):  # a damaged file may refuse to be closed; nothing was written
            file.close()


def child(group: Any, name: str, where: str) -> Any:
    """A member of a group, or None when there is none of that name."""
    with foreign(where, f"cannot be read at {name!r}"):
        if name not in group:
            return None
        return group[name]  # not get(): it calls a damaged member absent


def names(group: Any, where: str) -> list[str]:
    """Names of a group's members; ImportFormatError when it is no group."""
    with foreign(where):
        if not hasattr(group, "keys"):
            raise ImportFormatError(f"{where} is no group")
        return [str(name) for name in group]


def tree_names(group: Any, where: str) -> list[str]:
    """Names of a group's datasets and of those one level below ("obs/object")."""
    result = []
    for name in names(group, where):
        node = child(group, name, where)
        inner = names(node, f"{where}: {name}") if hasattr(node, "keys") else None
        result += [name] if inner is None else [f"{name}/{i}" for i in inner]
    return sorted(result)


def attribute(node: Any, name: str, where: str) -> Any:
    """One attribute as a plain value, None when absent."""
    with foreign(where, f"has a damaged attribute {name!r}"):
        value = node.attrs.get(name)
        if isinstance(value, bytes):
            return value.decode()
        return value.item() if getattr(value, "size", 0) == 1 else value


def json_attribute(node: Any, name: str, where: str) -> dict[str, Any] | None:
    """An attribute that holds a JSON object, None when absent; ImportFormatError when it is not one."""
    text = attribute(node, name, where)
    if text is None:
        return None
    with foreign(where, f"has an attribute {name!r} that is no JSON"):
        tree = json.loads(text)
    if not isinstance(tree, dict):
        raise ImportFormatError(f"{where} has an attribute {name!r} that is no JSON object: {tree!r:.80}")
    return tree


def frame_array(dataset: Any, where: str) -> FrameArray:
    """A dataset of frames.

    Raises:
        ImportFormatError: a group, not numbers, or some of it was never written (read as zeros).
    """
    with foreign(where):
        if not hasattr(dataset, "dtype") or dataset.shape is None:
            raise ImportFormatError(f"{where} is no dataset")
        shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
        array = FrameArray(lambda a, b: dataset[a:b], shape, dtype, chunks or (1, *shape[1:]), where)
        if chunks:
            wanted = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks))
            written, unit = dataset.id.get_num_chunks(), "chunks"
        else:
            wanted, unit = math.prod(shape) * dtype.itemsize, "bytes"
            written = dataset.id.get_storage_size()
    if written < wanted:
        raise ImportFormatError(f"{where}: {written} of {wanted} {unit} were written; the rest is missing")
    return array

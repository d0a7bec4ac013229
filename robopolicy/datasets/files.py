"""Changes to a disk, made durable one by one.

Everything the store writes goes through ``Files``, so that a test can put a layer in its place that forgets
what was not yet synced, and take the power away between any two operations.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from robopolicy.core.errors import StoreError


class AppendFile:
    """A new file that grows; ``sync`` returns once all written so far is on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes) -> int:
        """Append ``data``; returns the offset at which it begins."""
        offset, rest = self.size, memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self.size += len(data)
        return offset

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class Files:
    """Durable changes. Paths are local; errors are the operating system's ``OSError``."""

    def append_file(self, path: Path) -> AppendFile:
        return AppendFile(path)

    def write(self, path: Path, data: bytes) -> None:
        """A new file, its content on the disk when the call returns, its name once the folder is synced."""
        file = self.append_file(path)
        try:
            file.write(data)
            file.sync()
        finally:
            file.close()

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def sync_folder(self, path: Path) -> None:
        """The names in ``path`` are on the disk when the call returns."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        """A second name for a file; FileExistsError when the name is taken: the atomic "only one wins"."""
        os.link(old, new)

    def create(self, path: Path, data: bytes) -> None:
        """A whole new file that appears at once and durably, or FileExistsError."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        self.write(draft, data)
        try:
            self.link(draft, path)
        finally:
            draft.unlink()
        self.sync_folder(path.parent)

    def write_tree(self, root: Path, files: dict[str, bytes]) -> None:
        """Many small files under ``root``, and their folders, all durable."""
        folders = {root}
        for name in files:
            parent = (root / name).parent
            while parent not in folders:
                folders.add(parent)
                parent = parent.parent
        for folder in sorted(folders):
            self.make_folder(folder)
        for name, data in files.items():
            self.write(root / name, data)
        for folder in sorted(folders, reverse=True):
            self.sync_folder(folder)


@contextlib.contextmanager
def as_store_error(path: Path) -> Iterator[None]:
    """Turns a refusal of the disk into StoreError, naming what could not be written."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write to {path}: {error.strerror or error}; the store is unchanged"
        ) from error

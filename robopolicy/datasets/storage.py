"""Where a store is read from: a folder, or an object store behind a URL (fsspec)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from robopolicy.core.errors import MissingDependencyError, RobopolicyError, StoreError

Range = tuple[str, int, int]
OPEN_FILES = 256


class Storage(Protocol):
    """Reads by name relative to the root; a missing name is FileNotFoundError, other trouble OSError.

    ``parallel`` is how many episodes are worth reading at once.
    """

    parallel: int

    def read(self, name: str) -> bytes: ...

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Bytes ``start`` to ``stop`` of each file; shorter where the file is."""
        ...

    def size(self, name: str) -> int: ...

    def list(self, folder: str) -> list[str]:
        """Names directly in ``folder``; empty when there is none."""
        ...


class LocalStorage:
    """A folder. Keeps the last ``OPEN_FILES`` files open; safe to share between threads."""

    parallel = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        with self._lock:  # a descriptor must not be closed while another thread reads from it
            return [os.pread(self._descriptor(name), stop - start, start) for name, start, stop in ranges]

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def list(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.root / folder)
        except FileNotFoundError:
            return []

    def _descriptor(self, name: str) -> int:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        if len(self._open) >= OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[name] = os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[name]

    def close(self) -> None:
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()


class RemoteStorage:
    """An object store, read through fsspec with many requests at once."""

    parallel = 16

    def __init__(self, url: str, **options: Any) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise MissingDependencyError("stores by URL need fsspec; install robopolicy[cloud]") from error
        try:
            self._system, self._root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise StoreError(f"cannot open {url}: {error}; robopolicy[cloud] brings S3") from error

    def read(self, name: str) -> bytes:
        with _as_os_error():
            return bytes(self._system.cat_file(self._path(name)))

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        paths = [self._path(name) for name, _, _ in ranges]
        starts, stops = [start for _, start, _ in ranges], [stop for _, _, stop in ranges]
        with _as_os_error():
            return [bytes(part) for part in self._system.cat_ranges(paths, starts, stops, on_error="raise")]

    def size(self, name: str) -> int:
        with _as_os_error():
            return int(self._system.size(self._path(name)))

    def list(self, folder: str) -> list[str]:
        try:
            with _as_os_error():
                found = self._system.ls(self._path(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found]

    def write(self, name: str, data: bytes) -> None:
        """A whole new object; for copies."""
        with _as_os_error():
            self._system.pipe_file(self._path(name), data)

    def remove(self, names: Sequence[str]) -> None:
        """Take objects away; for copies that failed."""
        with _as_os_error():
            self._system.rm([self._path(name) for name in names])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Object stores raise exceptions of their own libraries (no network, no credentials); one kind here."""
    try:
        yield
    except (OSError, RobopolicyError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def is_url(where: str | Path) -> bool:
    return "://" in str(where)


def open_storage(where: str | Path) -> Storage:
    """Raises StoreError when nothing can be there; whether a store is there, reading tells."""
    if is_url(where):
        return RemoteStorage(str(where).rstrip("/"))
    path = Path(where)
    if not path.is_dir():
        raise StoreError(f"no store at {path}" + (": it is a file" if path.exists() else ""))
    return LocalStorage(path)

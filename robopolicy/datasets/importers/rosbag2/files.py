"""Which paths are bags, and which storage files a bag has. Names only; nothing is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopolicy.core.errors import ImportFormatError

METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3")


def is_storage(path: Path) -> bool:
    """By suffix: .mcap or .db3, or one of them packed as a whole (.zstd)."""
    return Path(path.name.removesuffix(".zstd")).suffix in SUFFIXES and not path.is_dir()


def holds_storage(path: Path) -> bool:
    """A folder of storage files; a recorder that was killed leaves one without metadata.yaml."""
    return path.is_dir() and any(is_storage(p) for p in path.iterdir())


def find_bags(path: Path) -> list[Path]:
    """The bags of ``path`` in name order: itself, or what lies directly in the folder.

    Raises:
        ImportFormatError: there is none.
    """
    if path.is_file():
        if not is_storage(path):
            raise ImportFormatError(
                f"{path} is no rosbag2; expected a file ending in {' or '.join(SUFFIXES)}"
            )
        return [path]
    if not path.is_dir():
        raise ImportFormatError(f"no such file or folder: {path}")
    if (path / METADATA).is_file():
        return [path]
    bags = sorted(p for p in path.iterdir() if is_storage(p) or holds_storage(p))
    if not bags:
        raise ImportFormatError(f"{path} holds no rosbag2: no {METADATA} and nothing ending in {SUFFIXES}")
    return bags


def storage_files(path: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """A bag's storage files in recording order, as metadata.yaml lists them.

    Raises:
        ImportFormatError: a listed file is missing, or none is listed.
    """
    if not path.is_dir():
        return [path]
    listed = metadata.get("relative_file_paths")
    if listed is None and not metadata:
        files = sorted(p for p in path.iterdir() if is_storage(p))
    elif isinstance(listed, list) and all(isinstance(entry, str) for entry in listed):
        files = [path / Path(entry).name for entry in listed]
    else:
        raise ImportFormatError(f"{path / METADATA}: relative_file_paths must be a list, got {listed!r}")
    if not files:
        raise ImportFormatError(f"{path} has no storage files")
    if missing := [file.name for file in files if not file.is_file()]:
        raise ImportFormatError(f"{path}: {METADATA} lists {missing}, which are missing")
    if foreign := [file.name for file in files if not is_storage(file)]:
        raise ImportFormatError(f"{path}: {METADATA} lists {foreign}; known storages end in {SUFFIXES}")
    return files

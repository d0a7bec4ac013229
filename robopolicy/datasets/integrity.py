"""Hold every byte of a store against its checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from robopolicy.core.errors import StoreError
from robopolicy.datasets import arrays, draft, editing, versions
from robopolicy.datasets.reader import FRAMES_AT_ONCE, EpisodeReader, file_hashes
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Args:
        episode: name; empty for the store itself.
        key: signal, "/value" or "/time_ns" after it; empty for a description.
        chunk: which chunk of that array, or its description; a frame's number for cameras; a file's name
            for the store itself.
    """

    episode: str
    key: str
    chunk: str
    message: str


def verify(
    store: EpisodeStore, names: list[str] | None = None, on_progress: Callable[[int, int], None] | None = None
) -> list[Damage]:
    """Every damage in these episodes; an empty list is a sound store.

    Checksums of every chunk, and the SHA-256 over all files that the version recorded, are computed again;
    every camera frame is decoded.

    Args:
        names: None for all of the version, and every version file and tag of the store besides.
    """
    damages = _store(store) if names is None else []
    chosen = store.names if names is None else names
    for count, name in enumerate(chosen, start=1):
        damages += _episode(store, name)
        if on_progress is not None:
            on_progress(count, len(chosen))
    return damages


def _store(store: EpisodeStore) -> list[Damage]:
    found = []
    for number in range(store.latest() + 1):
        try:
            store.read_version(number)
        except StoreError as error:
            found.append(Damage("", "", f"{versions.FOLDER}/{versions.file_name(number)}", str(error)))
    try:
        editing.tags(store)
    except StoreError as error:
        found.append(Damage("", "", versions.TAGS, str(error)))
    return found


def _episode(store: EpisodeStore, name: str) -> list[Damage]:
    reader = store.reader(name)
    try:
        described = reader.arrays
    except StoreError as error:
        return [Damage(name, "", "zarr.json", str(error))]
    found: list[Damage] = []
    for path, metadata in described.items():
        found += _frames(reader, path) if arrays.is_frames(metadata) else _block(reader, path)
    found += _descriptions(reader)
    try:
        hashes = file_hashes(reader)
    except StoreError as error:
        return found or [Damage(name, "", "", str(error))]
    if not found and draft.data_digest(hashes) != reader.entry.data:
        found.append(Damage(name, "", "", "the files are not those that were recorded (SHA-256 differs)"))
    return found


def _descriptions(reader: EpisodeReader) -> Iterator[Damage]:
    """Every array's and group's own zarr.json says what the episode's says."""
    for path, node in reader.tree["consolidated_metadata"]["metadata"].items():
        file = f"{path}/zarr.json"
        try:
            own = reader.storage.read(f"{reader.folder}/{file}")
        except OSError as error:
            message = f"{reader.where}: {file} cannot be read: {error.strerror or error}"
            yield Damage(reader.entry.name, path, "zarr.json", message)
            continue
        if own != arrays.to_json(node):
            message = f"{reader.where}: {file} and the episode's zarr.json differ"
            yield Damage(reader.entry.name, path, "zarr.json", message)


def _block(reader: EpisodeReader, path: str) -> Iterator[Damage]:
    try:
        reader.block(path)
    except StoreError as error:
        chunk = arrays.chunk_key(reader.arrays[path])
        yield Damage(reader.entry.name, path, chunk, str(error))


def _frames(reader: EpisodeReader, path: str) -> Iterator[Damage]:
    name = path.removesuffix("/value")
    try:
        frames = reader.frames(name, whole=True)
    except StoreError as error:
        yield Damage(reader.entry.name, path, arrays.chunk_key(reader.arrays[path]), str(error))
        return
    out = np.empty(frames.shape, frames.dtype)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        part = np.arange(start, min(start + FRAMES_AT_ONCE, len(frames)))
        for index, data in zip(part.tolist(), reader.storage.read_ranges(frames.ranges(part))):
            try:
                frames.decode_into(index, data, out)
            except StoreError as error:
                yield Damage(reader.entry.name, path, f"frame {index}", str(error))

"""Copies of stores: whole or in part, several into one, to and from object stores; byte for byte."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from robopolicy.core.errors import ConfigError, RunExistsError, SpecError, StoreError
from robopolicy.core.policy import keyed_rng
from robopolicy.core.serial import to_tree
from robopolicy.datasets import arrays, schema, versions
from robopolicy.datasets.draft import data_digest
from robopolicy.datasets.files import Files
from robopolicy.datasets.reader import EpisodeReader
from robopolicy.datasets.storage import RemoteStorage, is_url
from robopolicy.datasets.store import EpisodeStore, utc_now
from robopolicy.datasets.versions import Entry, Version

Part = tuple[EpisodeStore, Sequence[str]]
Progress = Callable[[int, int], None]


def merge(
    parts: Sequence[Part], destination: str | Path, on_progress: Progress | None = None
) -> EpisodeStore:
    """A new store with these episodes, numbered anew in this order; on a disk or by URL.

    Labels and trims are kept. Where each came from stays in the store's metadata.

    Raises:
        SpecError: two stores have different specs, named; RunExistsError: the destination exists;
        StoreError: an episode is damaged or a disk refuses. Nothing is left behind.
    """
    if not parts or not any(names for _, names in parts):
        raise ConfigError("nothing to copy: no episodes chosen")
    _check_alike([store for store, _ in parts])
    source = parts[0][0]
    origin = [
        {"store": s.where, "version": s.version, "digest": s.digest, "episodes": list(n)} for s, n in parts
    ]
    metadata = {**source.metadata, "copied_from": origin}
    attributes = schema.root_attributes(source.specs, metadata, source.root.codecs)
    target = _target(destination)
    total = sum(len(names) for _, names in parts)
    entries: list[Entry] = []
    try:
        for store, names in parts:
            for old in names:
                entry = dataclasses.replace(store.entry(old), name=schema.episode_name(len(entries)))
                _copy_episode(store.reader(old), target, entry.name)
                entries.append(entry)
                if on_progress is not None:
                    on_progress(len(entries), total)
        version = Version(0, utc_now(), "copy", tuple(entries), (), len(entries) - 1, tuple(entries))
        target.write(f"{schema.EPISODES}/zarr.json", arrays.to_json(arrays.group()))
        target.write("zarr.json", arrays.to_json(arrays.group(attributes)))
        target.write(f"{versions.FOLDER}/{versions.file_name(0)}", versions.encode(version))
        target.finish()
    except OSError as error:
        raise StoreError(f"cannot write to {destination}: {error.strerror or error}") from error
    finally:
        target.clean()
    return EpisodeStore.open(destination)


def split(
    store: EpisodeStore, shares: dict[str, float], *, seed: int, by_instruction: bool = True
) -> dict[str, list[str]]:
    """Episode names of each part, drawn at random; every episode is in exactly one part.

    Args:
        shares: part to share of the episodes; they sum to 1.
        by_instruction: draw within each instruction, so that every part sees all of them.
    Raises:
        ConfigError: shares that are not positive or do not sum to 1, or a part that stays empty.
    """
    if not all(share > 0 for share in shares.values()) or not abs(sum(shares.values()) - 1) <= 1e-9:
        raise ConfigError(f"shares must be positive and sum to 1, got {shares}")
    groups: dict[str, list[str]] = {}
    for name in store.names:
        groups.setdefault(store.entry(name).instruction if by_instruction else "", []).append(name)
    parts: dict[str, list[str]] = {part: [] for part in shares}
    rng, due = keyed_rng(seed), dict.fromkeys(shares, 0.0)
    for names in groups.values():
        for index in rng.permutation(len(names)).tolist():
            for part, share in shares.items():
                due[part] += share
            chosen = max(due, key=lambda part: due[part])  # the part that is furthest behind its share
            due[chosen] -= 1
            parts[chosen].append(names[index])
    empty = [part for part, names in parts.items() if not names]
    if empty:
        raise ConfigError(f"{len(store)} episodes are too few: {empty} would stay empty")
    return {part: sorted(names) for part, names in parts.items()}


def _target(destination: str | Path) -> _LocalTarget | _RemoteTarget:
    try:
        return _RemoteTarget(str(destination)) if is_url(destination) else _LocalTarget(Path(destination))
    except OSError as error:
        raise StoreError(f"cannot look at {destination}: {error.strerror or error}") from error


def _check_alike(stores: Sequence[EpisodeStore]) -> None:
    first = stores[0]
    for other in stores[1:]:
        mine, theirs = to_tree(first.specs), to_tree(other.specs)
        different = sorted(key for key in mine if mine[key] != theirs[key])
        if different:
            raise SpecError(
                f"{first.where} and {other.where} differ in {different}; they cannot be one store"
            )


def _copy_episode(reader: EpisodeReader, target: _LocalTarget | _RemoteTarget, name: str) -> None:
    """Every file of an episode; StoreError unless they are the bytes that were recorded."""
    hashes = {}
    for file in reader.file_names():
        try:
            data = reader.storage.read(f"{reader.folder}/{file}")
        except OSError as error:
            raise StoreError(f"{reader.where}: {file} cannot be read: {error.strerror or error}") from error
        hashes[file] = hashlib.sha256(data).hexdigest()
        target.write(f"{schema.EPISODES}/{name}/{file}", data)
    if data_digest(hashes) != reader.entry.data:
        raise StoreError(
            f"{reader.where} is damaged (SHA-256 differs): 'robopolicy dataset check' says where"
        )


class _LocalTarget:
    """A hidden draft beside the destination, which one rename makes visible."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise RunExistsError(f"{path} already exists; choose another path")
        self._path, self._draft = path, path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        self._files = Files()

    def write(self, name: str, data: bytes) -> None:
        path = self._draft / name
        self._files.make_folder(path.parent)
        self._files.write(path, data)

    def finish(self) -> None:
        for folder in sorted((p for p in self._draft.rglob("*") if p.is_dir()), reverse=True):
            self._files.sync_folder(folder)
        self._files.sync_folder(self._draft)
        self._files.rename(self._draft, self._path)
        self._files.sync_folder(self._path.parent)

    def clean(self) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)


class _RemoteTarget:
    """An object store; the version file, written last, is what makes it a store."""

    def __init__(self, url: str) -> None:
        self._storage = RemoteStorage(url.rstrip("/"))
        self._unfinished: list[str] = []
        if self._storage.list(""):
            raise RunExistsError(f"{url} already holds something; choose another place")

    def write(self, name: str, data: bytes) -> None:
        self._storage.write(name, data)
        self._unfinished.append(name)

    def finish(self) -> None:
        self._unfinished = []

    def clean(self) -> None:
        if self._unfinished:
            with contextlib.suppress(OSError):  # what made the copy fail matters more
                self._storage.remove(self._unfinished)

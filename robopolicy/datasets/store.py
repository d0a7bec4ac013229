"""A Zarr v3 store of episodes. An episode is one group, and is visible whole or not at all.

Writing goes to a staging folder beside the episodes; one ``rename`` makes the finished group
visible, so a reader, or a recorder killed half-way, never leaves half an episode behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from robopolicy.core.errors import RunExistsError, StoreError
from robopolicy.core.specs import Specs
from robopolicy.datasets import schema
from robopolicy.datasets.episode import Episode, Signal

IMAGE_FRAMES_PER_CHUNK = 8


class EpisodeStore:
    """Episodes under one set of specs. Use ``create`` or ``open``."""

    def __init__(self, path: Path, specs: Specs, metadata: dict[str, Any]) -> None:
        self.path = path
        self.specs = specs
        self.metadata = metadata

    @classmethod
    def create(
        cls, path: str | Path, specs: Specs, metadata: Mapping[str, Any] | None = None
    ) -> EpisodeStore:
        """A new, empty store.

        Raises:
            RunExistsError: something is already there; it is never overwritten.
        """
        path = Path(path)
        if path.exists():
            raise RunExistsError(f"{path} already exists; choose another path or append to the store")
        for name in specs.observation:
            schema.check_signal_name(name)
        facts = dict(metadata or {})
        draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        try:
            with _as_store_error(path):
                root = zarr.create_group(draft, attributes=schema.root_attributes(specs, facts))
                root.create_group(schema.EPISODES)
                draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path, specs, facts)

    @classmethod
    def open(cls, path: str | Path) -> EpisodeStore:
        """An existing store, to read or append.

        Raises:
            StoreError: nothing there, or not a robopolicy store; SchemaVersionError: another version.
        """
        path = Path(path)
        if not path.is_dir():
            raise StoreError(f"no store at {path}")
        try:
            root = zarr.open_group(path, mode="r", zarr_format=3)
        except (FileNotFoundError, ValueError) as error:
            raise StoreError(f"{path} is not a Zarr v3 group, or a damaged one: {error}") from error
        specs, metadata = schema.read_root(dict(root.attrs), str(path))
        return cls(path, specs, metadata)

    @property
    def names(self) -> list[str]:
        """Names of the visible episodes, in recording order."""
        folder = self.path / schema.EPISODES
        visible = [p.name for p in folder.iterdir() if p.name.isdigit() and (p / "zarr.json").is_file()]
        return sorted(visible, key=int)

    def __len__(self) -> int:
        return len(self.names)

    def append(self, episode: Episode) -> str:
        """Write one episode and make it visible; returns its name.

        Raises:
            SpecError, ShapeError, NonFiniteValueError: the episode breaks the specs; nothing is written.
            StoreError: the disk refused (full, read-only); the store is as before.
        """
        episode.check(self.specs, f"episode {len(self)}")
        staging = self.path / schema.STAGING / f"{_host()}-{os.getpid()}-{uuid.uuid4().hex}"
        try:
            with _as_store_error(self.path):
                self._remove_dead_staging()
                self._write(staging, episode)
                return self._publish(staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def read(self, name: str, keys: tuple[str, ...] | None = None) -> Episode:
        """One episode in memory; ``keys`` limits which observations are read."""
        try:
            group = zarr.open_group(self.path / schema.EPISODES / name, mode="r", zarr_format=3)
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} has no episode {name!r}; it has {len(self)}") from error
        facts = schema.read_episode(dict(group.attrs), f"{self.path}, episode {name}")
        chosen = tuple(self.specs.observation) if keys is None else keys
        extra = group["extra"]
        assert isinstance(extra, zarr.Group)
        return Episode(
            observation={key: _read_signal(group, f"observation/{key}") for key in chosen},
            action=_read_signal(group, "action"),
            extra={key: _read_signal(group, f"extra/{key}") for key in sorted(extra.group_keys())},
            **facts,
        )

    def facts(self, name: str) -> dict[str, Any]:
        """What the episode's attributes say, "length" included; reads one small file and no array."""
        path = self.path / schema.EPISODES / name / "zarr.json"
        try:
            attributes = json.loads(path.read_text())["attributes"]
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} has no episode {name!r}; it has {len(self)}") from error
        except (ValueError, KeyError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        length = attributes.get(schema.EPISODE_KEY, {}).get("length")
        return {**schema.read_episode(attributes, str(path)), "length": length}

    def digest(self) -> str:
        """SHA-256 (hex) over the names and attributes of the visible episodes: which data this was."""
        total = hashlib.sha256()
        for name in self.names:
            total.update(name.encode() + (self.path / schema.EPISODES / name / "zarr.json").read_bytes())
        return total.hexdigest()

    def episodes(self, keys: tuple[str, ...] | None = None) -> Iterator[Episode]:
        """Every visible episode, in recording order."""
        for name in self.names:
            yield self.read(name, keys)

    def _write(self, folder: Path, episode: Episode) -> None:
        facts = {field: getattr(episode, field) for field in schema.EPISODE_FIELDS}
        facts.update(length=len(episode), metadata=dict(episode.metadata))
        group = zarr.create_group(folder, attributes={schema.EPISODE_KEY: facts})
        for name, signal in episode.observation.items():
            spec = self.specs.observation[name]
            attributes = {"units": list(spec.units), "names": list(spec.names), "kind": spec.kind}
            value = signal.value.astype(spec.dtype, casting="same_kind", copy=False)
            _write_signal(group, f"observation/{name}", Signal(value, signal.time_ns), attributes)
        units, names = list(self.specs.action.units), list(self.specs.action.names)
        commands = Signal(episode.action.value.astype(np.float32, copy=False), episode.action.time_ns)
        _write_signal(group, "action", commands, {"units": units, "names": names, "kind": "state"})
        group.create_group("extra")
        for name, signal in episode.extra.items():
            schema.check_signal_name(name)
            attributes = {"units": [], "names": [], "kind": "extra"}
            _write_signal(group, f"extra/{name}", signal, attributes)

    def _publish(self, staging: Path) -> str:
        names = self.names
        index = int(names[-1]) + 1 if names else 0
        while True:
            name = schema.episode_name(index)
            try:
                os.rename(staging, self.path / schema.EPISODES / name)
            except OSError:
                if not (self.path / schema.EPISODES / name).exists():
                    raise
                index += 1  # another recorder took this name first
            else:
                return name

    def _remove_dead_staging(self) -> None:
        folder = self.path / schema.STAGING
        for leftover in folder.iterdir() if folder.is_dir() else ():
            host, _, rest = leftover.name.partition("-")
            if host != _host():
                continue  # another machine's recorder; only it can tell whether that one lives
            try:
                os.kill(int(rest.split("-")[0]), 0)
            except ProcessLookupError:
                shutil.rmtree(leftover, ignore_errors=True)
            except (PermissionError, ValueError):
                continue


def _host() -> str:
    return "".join(c for c in platform.node() if c.isalnum()) or "host"


def _write_signal(group: zarr.Group, path: str, signal: Signal, attributes: dict[str, Any]) -> None:
    value = signal.value
    count = len(value)
    is_image = attributes["kind"] == "image"
    shuffle: Literal["shuffle", "noshuffle"] = "noshuffle" if is_image else "shuffle"
    frames = min(IMAGE_FRAMES_PER_CHUNK, count) if is_image else count
    array = group.create_array(
        f"{path}/value",
        shape=value.shape,
        dtype=value.dtype,
        chunks=(frames, *value.shape[1:]),
        shards=(-(-count // frames) * frames, *value.shape[1:]) if is_image else None,
        compressors=(BloscCodec(cname="zstd", clevel=3, shuffle=shuffle), Crc32cCodec()),
        attributes=attributes,
    )
    array[:] = value
    compressors = (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec())
    times = group.create_array(
        f"{path}/time_ns", shape=(count,), dtype=np.int64, chunks=(count,), compressors=compressors
    )
    times[:] = signal.time_ns


def _read_signal(group: zarr.Group, path: str) -> Signal:
    try:
        value, time_ns = group[f"{path}/value"], group[f"{path}/time_ns"]
    except KeyError as error:
        raise StoreError(f"{group.store_path} has no signal {path!r}") from error
    assert isinstance(value, zarr.Array) and isinstance(time_ns, zarr.Array)
    try:
        return Signal(np.asarray(value[:]), np.asarray(time_ns[:]))
    except (RuntimeError, ValueError, OSError) as error:
        raise StoreError(f"{group.store_path}: {path!r} cannot be read: {error}") from error


@contextlib.contextmanager
def _as_store_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write to {path}: {error.strerror or error}; the store is unchanged"
        ) from error

"""Diffusion Policy / UMI ReplayBuffer: Zarr v2, every episode end to end in one array per key.

Layout: ``data/KEY`` (frames, ...) and ``meta/episode_ends`` (episodes,), in a folder or a zip.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from rich.progress import track
from zarr.storage import LocalStore, ZipStore

from robopolicy.core.errors import ImportFormatError, NonFiniteValueError, RunExistsError
from robopolicy.core.specs import ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.importers.mapping import Mapping, ObservationMap
from robopolicy.datasets.store import EpisodeStore


def import_dataset(source: Path, destination: Path, mapping: Mapping) -> dict[str, Any]:
    """Copy a ReplayBuffer into a new store, bit-equal; nothing is left behind when it fails.

    Returns:
        A report: episodes, frames, which keys were mapped, ignored, or converted and how.
    Raises:
        ImportFormatError: not a ReplayBuffer, or a mapped key is missing.
        NonFiniteValueError: NaN in a demonstration, with episode and frame.
        RunExistsError: the destination exists.
    """
    if destination.exists():
        raise RunExistsError(f"{destination} already exists; choose another path")
    with _open(source) as root:
        data, ends = _read_layout(root, source, mapping)
        specs = _specs(data, mapping, source)
        partial = destination.with_name(f".{destination.name}-{uuid.uuid4().hex}")
        try:
            store = EpisodeStore.create(partial, specs, {"source": source.name, "format": "replay_buffer"})
            starts = [0, *ends[:-1].tolist()]
            spans = list(zip(starts, ends.tolist()))
            for number, (start, stop) in enumerate(track(spans, description="importing")):
                episode = _episode(data, mapping, slice(start, stop), number)
                episode.check(specs, f"{source.name}, episode {number}")
                store.append(episode)
            partial.rename(destination)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    used = {m.source for m in mapping.observation.values()} | {mapping.action.source}
    return {
        "episodes": len(ends),
        "frames": int(ends[-1]),
        "mapped": {name: m.source for name, m in mapping.observation.items()},
        "ignored": sorted(set(data.array_keys()) - used),
        "converted": ["images float32 0..255 to uint8, checked equal", "time = frame index / rate"],
    }


@contextlib.contextmanager
def _open(source: Path) -> Iterator[zarr.Group]:
    if not source.exists():
        raise ImportFormatError(f"no such file or folder: {source}")
    try:
        if source.is_file():
            zipfile.ZipFile(source).close()  # zarr's ZipStore cannot be closed when this fails
    except (zipfile.BadZipFile, EOFError) as error:
        raise ImportFormatError(f"{source} is not a readable zip archive: {error}") from error
    store = ZipStore(source, mode="r") if source.is_file() else LocalStore(source, read_only=True)
    with contextlib.closing(store):
        try:
            root = zarr.open_group(store, mode="r", zarr_format=2)
        except (FileNotFoundError, ValueError) as error:
            raise ImportFormatError(f"{source} is not a readable Zarr v2 archive: {error}") from error
        yield root


def _read_layout(root: zarr.Group, source: Path, mapping: Mapping) -> tuple[zarr.Group, NDArray[np.int64]]:
    try:
        data, ends = root["data"], root["meta/episode_ends"]
    except (KeyError, ValueError) as error:
        raise ImportFormatError(f"{source} has no data/ group or meta/episode_ends") from error
    if not isinstance(data, zarr.Group) or not isinstance(ends, zarr.Array):
        raise ImportFormatError(f"{source}: data must be a group and meta/episode_ends an array")
    known = sorted(data.array_keys())
    for name in (*(m.source for m in mapping.observation.values()), mapping.action.source):
        if name not in known:
            raise ImportFormatError(f"{source} has no data/{name}; it has {known}")
    stops = np.asarray(ends[:], dtype=np.int64)
    frames = data[mapping.action.source].shape[0]  # type: ignore[union-attr]
    if not len(stops) or (np.diff(stops, prepend=0) <= 0).any() or stops[-1] != frames:
        raise ImportFormatError(f"{source}: episode_ends must increase and end at {frames}, got {stops}")
    return data, stops


def _specs(data: zarr.Group, mapping: Mapping, source: Path) -> Specs:
    observation = {}
    for name, part in mapping.observation.items():
        array: Any = data[part.source]
        columns = array.shape[-1]
        if any(not 0 <= column < columns for column in part.columns):
            raise ImportFormatError(
                f"{source}: data/{part.source} has {columns} columns, the mapping says {part.columns}"
            )
        shape = (len(part.columns),) if part.columns else array.shape[1:]
        dtype = "uint8" if part.kind == "image" else array.dtype.name
        observation[name] = ArraySpec(shape, dtype, part.units, part.names, part.kind, part.angles)
    action = ActionSpec(mapping.action.parts, mapping.action.reached)
    action_array: Any = data[mapping.action.source]
    if action_array.shape[1:] != (action.dim,):
        raise ImportFormatError(
            f"{source}: data/{mapping.action.source} has {action_array.shape[1:]} per frame, "
            f"the mapping says {action.dim}"
        )
    return Specs(observation, action, mapping.rate, mapping.robot)


def _episode(data: zarr.Group, mapping: Mapping, span: slice, number: int) -> Episode:
    length = span.stop - span.start
    time_ns = np.round(np.arange(length) * (1e9 / mapping.rate)).astype(np.int64)
    return Episode(
        observation={
            name: Signal(_values(data, part, span, f"episode {number}, {name}"), time_ns)
            for name, part in mapping.observation.items()
        },
        action=Signal(_read(data, mapping.action.source, span, f"episode {number}, action"), time_ns),
        instruction=mapping.instruction,
        clock="frame_index",
        metadata={"source_episode": number},
    )


def _read(data: zarr.Group, name: str, span: slice, where: str) -> NDArray[Any]:
    array: Any = data[name]
    try:
        return np.asarray(array[span])
    except (RuntimeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ImportFormatError(f"{where}: data/{name} cannot be decoded: {error}") from error


def _values(data: zarr.Group, part: ObservationMap, span: slice, where: str) -> NDArray[Any]:
    values = _read(data, part.source, span, where)
    if part.columns:
        values = values[..., list(part.columns)]
    if part.kind == "image" and values.dtype != np.uint8:
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise NonFiniteValueError(f"{where}, frame {int(np.argmin(finite))}: non-finite pixel")
        pixels = values.astype(np.uint8)
        if not np.array_equal(pixels, values):
            raise ImportFormatError(f"{where}: image values are not whole numbers in 0..255")
        return pixels
    return values

"""LeRobot v3.0: rows as parquet, cameras as mp4 or PNG, many episodes per file.

What LeRobot has no place for (units, action parts, success that nobody judged, seeds) is kept in
``meta/robopolicy.json``, which ``importers.lerobot`` reads back.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from robopolicy.core.errors import ConfigError, MissingDependencyError, RunExistsError, StoreError
from robopolicy.core.serial import to_tree
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.exporters.lerobot.stats import Merged, Pixels, Stats, as_lists, of_numbers
from robopolicy.datasets.reader import EpisodeReader
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import align

try:
    import pyarrow as pa

    from robopolicy.datasets.exporters.lerobot import meta
    from robopolicy.datasets.exporters.lerobot.files import (
        CODECS,
        DATA_PATH,
        EPISODES_PATH,
        Tables,
        Videos,
        png,
    )
    from robopolicy.datasets.importers.lerobot.mapping import OWN_FILE, OWN_VERSION
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"LeRobot datasets need pyarrow and av (no {error.name}): pip install 'robopolicy[formats]'"
    ) from error

BLOCK = 64  # frames of a camera in memory
MB = 1 << 20


def export_dataset(
    store: EpisodeStore,
    destination: Path,
    *,
    video: bool = True,
    codec: str = "h264",
    data_file_mb: float = 100,
    video_file_mb: float = 200,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write every episode in view as a new LeRobot v3.0 dataset; nothing is left behind when it fails.

    Args:
        video: cameras as video, which loses some detail; else as PNG, which loses none and is larger.
        codec: of the videos: "h264" or "av1".
        data_file_mb, video_file_mb: a file that has reached this size [MiB] takes no further episode.
    Returns:
        A report: episodes, frames, ``mapped`` (our signal to LeRobot's feature), ``left_out``, ``changed``.
    Raises:
        RunExistsError: the destination exists; StoreError: the store is empty or damaged;
        ConfigError: the codec is unknown or cannot hold the cameras' size.
    """
    destination = Path(destination)
    if destination.exists():
        raise RunExistsError(f"{destination} already exists; choose another path")
    if codec not in CODECS:
        raise ConfigError(f"video codec {codec!r} is not one of {sorted(CODECS)}")
    outline, report = _outline(store, video)
    partial = destination.with_name(f".{destination.name}-{uuid.uuid4().hex}")
    try:
        (partial / "meta").mkdir(parents=True)
        _write(store, outline, meta.Limits(codec, data_file_mb, video_file_mb), partial, console)
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _outline(store: EpisodeStore, video: bool) -> tuple[meta.Outline, dict[str, Any]]:
    """What can be carried, from the facts and times of every episode; no camera is read."""
    if not store.names:
        raise StoreError(f"{store.where} has no episodes")
    depth = [key for key, spec in store.specs.observation.items() if spec.kind == "depth"]
    kept = tuple(key for key in store.specs.observation if key not in depth)
    if not kept:
        raise StoreError(f"{store.where} has depth {depth} only, which LeRobot has no place for")
    specs = store.specs.select(kept)
    lengths: dict[str, int] = {}
    tasks: dict[str, int] = {}
    extras: set[str] = set()
    rewarded, judged, late = True, False, 0.0
    for name in store.names:
        facts, reader = store.facts(name), store.reader(name)
        times = reader.times("action")
        lengths[name] = len(times)
        tasks.setdefault(facts["instruction"], len(tasks))
        judged |= facts["success"] is not None
        rewarded &= _has_reward(reader, times)
        extras.update(reader.extras)
        grid = np.arange(len(times)) / specs.policy_rate
        late = max(late, float(np.abs((times - times[0]) / 1e9 - grid).max()))
    extra = {**({meta.REWARD: "float32"} if rewarded else {}), **({meta.SUCCESS: "bool"} if judged else {})}
    sources = {f"observation/{k}": meta.feature_key(k, s.kind) for k, s in specs.observation.items()}
    sources.update({"extra/reward": meta.REWARD} if rewarded else {})
    features = meta.make_features(specs, video=video, extra=extra)
    outline = meta.Outline(specs, sources, features, lengths, list(tasks))
    left_out = [f"observation/{key}: depth" for key in depth]
    left_out += [f"extra/{key}" for key in sorted(extras) if key != "reward" or not rewarded]
    changed = [
        f"times: frame index / {specs.policy_rate:g}; the true ones lie up to {late * 1e3:.3g} ms off that"
    ]
    changed.append(
        "observations: the newest sample at each action; those in between and after the last are not kept"
    )
    if video and outline.cameras:
        changed.append(f"{', '.join(outline.cameras.values())}: video, which loses some detail")
    report = {
        "episodes": len(lengths),
        "frames": sum(lengths.values()),
        "mapped": {**sources, "action": "action"},
    }
    return outline, {**report, "left_out": left_out, "changed": changed}


def _has_reward(reader: EpisodeReader, times: NDArray[np.int64]) -> bool:
    """One number at every action; LeRobot has one row per action and no other place."""
    if "reward" not in reader.extras:
        return False
    signal = reader.signal("extra/reward")
    single = signal.value.ndim == 1 and np.can_cast(signal.value.dtype, np.float32, "same_kind")
    return bool(single and np.array_equal(signal.time_ns, times))


def _write(
    store: EpisodeStore, outline: meta.Outline, limits: meta.Limits, root: Path, console: Console | None
) -> None:
    features, rate = outline.features, Fraction(outline.specs.policy_rate).limit_denominator(1_000_000)
    data = Tables(root, DATA_PATH, meta.data_schema(features), int(limits.data_mb * MB))
    episodes = Tables(root, EPISODES_PATH, meta.episodes_schema(features), int(limits.data_mb * MB))
    videos = {
        key: Videos(root, key, tuple(features[key]["shape"]), rate, limits.codec, int(limits.video_mb * MB))
        for key in outline.cameras
        if features[key]["dtype"] == "video"
    }
    merged, facts, start = Merged(), [], 0
    try:
        names = track(outline.lengths, "exporting", len(outline.lengths), console=console, transient=True)
        for index, name in enumerate(names):
            episode = store.reader(name).episode((), ())
            row, stats = _write_episode(store, outline, name, index, start, data, videos)
            merged.add(stats)
            for key, found in stats.items():
                row.update({f"stats/{key}/{k}": v for k, v in as_lists(found).items()})
            row.update({f"meta/episodes/{k}": v for k, v in episodes.next_place().items()})
            episodes.add({key: [value] for key, value in row.items()})
            start += outline.lengths[name]
            kept = {"success": episode.success, "seed": episode.seed}
            facts.append({**kept, "metadata": dict(episode.metadata)})
    finally:
        data.close()
        episodes.close()
        for video in videos.values():
            video.close()
    meta.write_info(root, outline, limits, {key: v.pixel_format for key, v in videos.items()})
    meta.write_tasks(root, outline.tasks)
    meta.write_json(root / "meta" / "stats.json", merged.tree())
    own = {"version": OWN_VERSION, "specs": to_tree(outline.specs), "sources": dict(outline.sources)}
    meta.write_json(root / OWN_FILE, {**own, "episodes": facts})


def _write_episode(
    store: EpisodeStore,
    outline: meta.Outline,
    name: str,
    index: int,
    start: int,
    data: Tables,
    videos: dict[str, Videos],
) -> tuple[dict[str, Any], dict[str, Stats]]:
    """Rows and frames of one episode; returns its line of meta/episodes and its statistics."""
    reader = store.reader(name)
    columns, task = _numbers(reader, outline, index, start)
    stats = {key: of_numbers(values) for key, values in columns.items()}
    length = outline.lengths[name]
    row: dict[str, Any] = {"episode_index": index, "tasks": [task], "length": length}
    row.update({f"data/{key}": value for key, value in data.next_place().items()})
    row.update(dataset_from_index=start, dataset_to_index=start + length)
    pixels = {key: Pixels() for key in outline.cameras}
    frames = {key: _frames(reader, outline, ours, pixels[key]) for key, ours in outline.cameras.items()}
    for key, writer in videos.items():
        row.update({f"videos/{key}/{k}": v for k, v in writer.add_episode(frames.pop(key)).items()})
    size = BLOCK if frames else length
    for first in range(0, length, size):
        block: dict[str, Any] = {key: _arrow(values[first : first + size]) for key, values in columns.items()}
        for key, blocks in frames.items():
            block[key] = [{"bytes": png(image), "path": None} for image in next(blocks)]
        data.add(block)
    return row, stats | {key: found.stats() for key, found in pixels.items()}


def _numbers(
    reader: EpisodeReader, outline: meta.Outline, index: int, start: int
) -> tuple[dict[str, NDArray[Any]], str]:
    """Every column that is no camera, (length, *shape), and the instruction."""
    states = tuple(key for key, spec in outline.specs.observation.items() if spec.kind == "state")
    extra = ("reward",) if meta.REWARD in outline.features else ()
    episode = reader.episode(states, extra)
    specs = outline.specs.select(states) if states else None
    observation, action = align(episode, specs) if specs else ({}, episode.action.value)
    columns = {outline.sources[f"observation/{key}"]: value for key, value in observation.items()}
    columns["action"] = action.astype(np.float32, copy=False)
    length = len(action)
    frame = np.arange(length)
    if extra:
        columns[meta.REWARD] = episode.extra["reward"].value.astype(np.float32)
    if meta.SUCCESS in outline.features:
        columns[meta.SUCCESS] = (frame == length - 1) & bool(episode.success)
    columns["timestamp"] = (frame / outline.specs.policy_rate).astype(np.float32)
    columns.update(frame_index=frame, episode_index=np.full(length, index), index=frame + start)
    columns["task_index"] = np.full(length, outline.tasks.index(episode.instruction))
    flat = {k: v[:, 0] if v.shape[1:] == (1,) else v for k, v in columns.items()}
    return flat, episode.instruction


def _frames(
    reader: EpisodeReader, outline: meta.Outline, key: str, stats: Pixels
) -> Iterator[NDArray[np.uint8]]:
    """The frames that the actions see, decoded ``BLOCK`` at a time."""
    name = f"observation/{key}"
    times, commands = reader.times(name), reader.signal("action")
    numbered = Episode({key: Signal(np.arange(len(times)), times)}, commands)
    seen = align(numbered, outline.specs.select((key,)))[0][key]
    frames = reader.frames(name)
    for first in range(0, len(seen), BLOCK):
        block = frames.read(reader.storage, seen[first : first + BLOCK])
        stats.add(block)
        yield block


def _arrow(values: NDArray[Any]) -> pa.Array:
    """(count, *shape) as scalars, fixed lists, or lists of lists."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(array, values.shape[1])
    for axis in range(values.ndim - 1, 0, -1):
        size = values.shape[axis]
        array = pa.ListArray.from_arrays(pa.array(np.arange(0, len(array) + 1, size), pa.int32()), array)
    return array

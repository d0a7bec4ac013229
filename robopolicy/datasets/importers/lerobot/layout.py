"""LeRobot's meta folder: features, tasks, and where the rows and frames of every episode lie.

Source: LeRobot's documentation, "LeRobotDataset v3.0", and the ``meta/info.json`` of v2.1 and v3.0 datasets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.importers._boundary import foreign

VERSIONS = ("v2.1", "v3.0")
CAMERAS = ("video", "image")
#: Columns that every dataset has and that say where a row belongs.
ROW_KEYS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Feature:
    """One column, or one camera.

    Args:
        dtype: a numpy name, "video", "image" or "string".
        shape: of one sample; (height, width, 3) for cameras, whatever order the file says.
        names: one per element of the last axis, or empty.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def numpy(self) -> np.dtype[Any] | None:
        """Of one sample, None when it is no number."""
        if self.dtype in CAMERAS:
            return np.dtype(np.uint8)
        try:
            found = np.dtype(self.dtype)
        except TypeError:
            return None
        return found if found.kind in "biuf" else None


@dataclass(frozen=True)
class Clip:
    """Where an episode begins in a video."""

    path: Path
    start_s: float


@dataclass(frozen=True)
class EpisodePlace:
    """One episode: its rows [start, start + length) of ``path`` and its part of every camera's video."""

    index: int
    length: int
    tasks: tuple[str, ...]
    path: Path
    start: int
    clips: Mapping[str, Clip]


@dataclass(frozen=True)
class Layout:
    """A dataset's meta folder, read."""

    root: Path
    version: str
    info: Mapping[str, Any]
    fps: float
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    episodes: tuple[EpisodePlace, ...]

    @property
    def videos(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature.dtype == "video"]


def read_layout(root: Path) -> Layout:
    """The meta folder of a dataset.

    Raises:
        ImportFormatError: a file is missing or damaged, or of another version; names file and field.
    """
    if not root.is_dir():
        raise ImportFormatError(f"{root} is not a folder; a LeRobot dataset is one that holds meta/info.json")
    where = root / "meta" / "info.json"
    with foreign(str(where)):
        info = json.loads(where.read_text())
        version = str(info["codebase_version"])
    if version not in VERSIONS:
        raise ImportFormatError(f"{where}: codebase_version {version!r} is not one of {VERSIONS}")
    with foreign(str(where), "is no description of a dataset"):
        fps = float(info["fps"])
        features = {str(key): _feature(tree) for key, tree in info["features"].items()}
    if not 0 < fps < float("inf"):
        raise ImportFormatError(f"{where}: fps must be positive [Hz], got {fps}")
    videos = [key for key, feature in features.items() if feature.dtype == "video"]
    tasks, episodes = _read_v2(root, info, videos) if version == "v2.1" else _read_v3(root, info, videos)
    _check_episodes(root, info, episodes)
    return Layout(root, version, info, fps, features, tasks, tuple(episodes))


def _feature(tree: Mapping[str, Any]) -> Feature:
    shape = tuple(int(n) for n in tree["shape"]) or (1,)
    names = tuple(_flat(tree.get("names")))
    if tree["dtype"] in CAMERAS:
        if len(shape) == 3 and (names[:1] in (("channels",), ("channel",)) or shape[2] != 3 == shape[0]):
            shape = (*shape[1:], shape[0])
        names = ()
    return Feature(str(tree["dtype"]), shape, names)


def _flat(names: Any) -> Iterator[str]:
    """LeRobot writes a list, a list in a list, {"motors": list} or {name: position}."""
    if isinstance(names, dict):
        lists = [v for v in names.values() if isinstance(v, list)]
        yield from _flat(lists if lists else sorted(names, key=lambda name: int(names[name])))
    elif isinstance(names, list):
        for name in names:
            yield from _flat(name)
    elif names is not None:
        yield str(names)


def _read_v2(root: Path, info: Any, videos: list[str]) -> tuple[dict[int, str], list[EpisodePlace]]:
    path = root / "meta" / "tasks.jsonl"
    with foreign(str(path)):
        tasks = {int(line["task_index"]): str(line["task"]) for line in _json_lines(path)}
    path = root / "meta" / "episodes.jsonl"
    episodes = []
    for line in _json_lines(path):
        with foreign(str(path), "has a damaged line"):
            index, length = int(line["episode_index"]), int(line["length"])
            said = tuple(str(task) for task in line.get("tasks", ()))
        with foreign(str(root / "meta" / "info.json"), "has no usable data_path and video_path"):
            fields = {"episode_chunk": index // int(info["chunks_size"]), "episode_index": index}
            data = _inside(root, info["data_path"], fields)
            clips = {}
            for key in videos:
                clips[key] = Clip(_inside(root, info["video_path"], {**fields, "video_key": key}), 0.0)
        episodes.append(EpisodePlace(index, length, said, data, 0, clips))
    return tasks, episodes


def _read_v3(root: Path, info: Any, videos: list[str]) -> tuple[dict[int, str], list[EpisodePlace]]:
    path = root / "meta" / "tasks.parquet"
    with foreign(str(path)):
        table = pq.read_table(path)  # the text is pandas' index, whose column has no fixed name
        text = next(name for name in table.column_names if name != "task_index")
        tasks = dict(zip(table["task_index"].to_pylist(), map(str, table[text].to_pylist())))
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        with foreign(str(path)):
            file = pq.ParquetFile(path)
            wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            rows += file.read(columns=wanted).to_pylist()
    first: dict[tuple[int, int], int] = {}
    with foreign(str(root / "meta" / "episodes"), "lacks columns or holds other values"):
        for row in rows:
            key, start = (row["data/chunk_index"], row["data/file_index"]), int(row["dataset_from_index"])
            first[key] = min(start, first.get(key, start))
        return tasks, [_place_v3(root, info, videos, row, first) for row in rows]


def _place_v3(
    root: Path, info: Any, videos: list[str], row: dict[str, Any], first: dict[tuple[int, int], int]
) -> EpisodePlace:
    file = (row["data/chunk_index"], row["data/file_index"])
    data = _inside(root, info["data_path"], {"chunk_index": file[0], "file_index": file[1]})
    clips = {}
    for key in videos:
        fields = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
        path = _inside(root, info["video_path"], {**fields, "video_key": key})
        clips[key] = Clip(path, float(row[f"videos/{key}/from_timestamp"]))
    start = int(row["dataset_from_index"]) - first[file]
    tasks = tuple(str(task) for task in row.get("tasks") or ())
    return EpisodePlace(int(row["episode_index"]), int(row["length"]), tasks, data, start, clips)


def _inside(root: Path, template: str, fields: Mapping[str, Any]) -> Path:
    relative = PurePosixPath(template.format(**fields))
    if relative.is_absolute() or ".." in relative.parts:
        raise ImportFormatError(f"{root}: meta/info.json points outside the dataset, at {relative}")
    return root / relative


def _json_lines(path: Path) -> Iterator[Any]:
    with foreign(str(path)):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    yield from lines


def _check_episodes(root: Path, info: Any, episodes: list[EpisodePlace]) -> None:
    indices = [episode.index for episode in episodes]
    if len(set(indices)) != len(indices):
        double = sorted({i for i in indices if indices.count(i) > 1})
        raise ImportFormatError(f"{root}: meta/episodes lists episodes {double} more than once")
    promised = info.get("total_episodes", len(indices))
    if promised != len(indices):
        raise ImportFormatError(
            f"{root}: meta/info.json says {promised} episodes, meta/episodes lists {len(indices)}"
        )
    empty = [episode.index for episode in episodes if episode.length < 1]
    if empty:
        raise ImportFormatError(f"{root}: meta/episodes gives episodes {empty} no frame")

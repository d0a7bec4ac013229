"""LeRobot's description of a dataset, made from ours: features, info.json, the task table, column types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robopolicy.core.specs import Specs
from robopolicy.datasets.exporters.lerobot import files
from robopolicy.datasets.exporters.lerobot.stats import QUANTILES

VERSION = "v3.0"
REWARD, SUCCESS = "next.reward", "next.success"
ROW_FEATURES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
ROW_FEATURES["task_index"] = "int64"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class Limits:
    """How videos are encoded, and when a file takes no further episode [MiB]."""

    codec: str
    data_mb: float
    video_mb: float


@dataclass(frozen=True)
class Outline:
    """What the dataset will hold, known before the first frame is written.

    Args:
        specs: of the observations that are carried.
        sources: "observation/KEY", "extra/KEY" to LeRobot's feature.
        features: LeRobot's description of every column and camera.
        lengths: of every episode, by name.
        tasks: instructions in order of their index.
    """

    specs: Specs
    sources: Mapping[str, str]
    features: dict[str, dict[str, Any]]
    lengths: Mapping[str, int]
    tasks: list[str]

    @property
    def cameras(self) -> dict[str, str]:
        """LeRobot's key of every camera to ours."""
        found = {key: spec.kind for key, spec in self.specs.observation.items()}
        return {self.sources[f"observation/{key}"]: key for key, kind in found.items() if kind == "image"}


def feature_key(key: str, kind: str) -> str:
    """LeRobot's name of an observation."""
    return f"observation.images.{key}" if kind == "image" else f"observation.{key}"


def make_features(specs: Specs, *, video: bool, extra: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """``extra``: further scalar features to their dtype."""
    features: dict[str, dict[str, Any]] = {}
    for key, spec in specs.observation.items():
        tree: dict[str, Any] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "names": list(spec.names) or None,
        }
        if spec.kind == "image":
            tree.update(dtype="video" if video else "image", names=["height", "width", "channels"])
        features[feature_key(key, spec.kind)] = tree
    names = list(specs.action.names)
    features["action"] = {"dtype": "float32", "shape": [specs.action.dim], "names": names}
    for key, dtype in {**extra, **ROW_FEATURES}.items():
        features[key] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def data_schema(features: Mapping[str, Any]) -> pa.Schema:
    """Columns of the data files, in LeRobot's order; videos are no column."""
    columns = []
    for key, tree in features.items():
        if tree["dtype"] == "image":
            columns.append((key, IMAGE))
        elif tree["dtype"] != "video":
            columns.append((key, column_type(tree)))
    return pa.schema(columns)


def column_type(tree: Mapping[str, Any]) -> pa.DataType:
    kind, shape = pa.from_numpy_dtype(np.dtype(tree["dtype"])), tree["shape"]
    if shape == [1]:
        return kind
    if len(shape) == 1:
        return pa.list_(kind, shape[0])
    for _ in shape:  # Hugging Face's Array2D and so on are lists of lists
        kind = pa.list_(kind)
    return kind


def episodes_schema(features: Mapping[str, Any]) -> pa.Schema:
    """Columns of meta/episodes."""
    number, text = pa.int64(), pa.list_(pa.string())
    columns: list[tuple[str, pa.DataType]] = [("episode_index", number), ("tasks", text), ("length", number)]
    columns += [(f"data/{name}", number) for name in ("chunk_index", "file_index")]
    columns += [("dataset_from_index", number), ("dataset_to_index", number)]
    for key, tree in features.items():
        if tree["dtype"] == "video":
            columns += [(f"videos/{key}/{name}", number) for name in ("chunk_index", "file_index")]
            columns += [(f"videos/{key}/{name}", pa.float64()) for name in ("from_timestamp", "to_timestamp")]
    for key, tree in features.items():
        camera = tree["dtype"] in ("video", "image")
        kind: pa.DataType = pa.float64()
        for _ in range(3 if camera else len(tree["shape"])):
            kind = pa.list_(kind)
        columns += [(f"stats/{key}/{name}", kind) for name in ("min", "max", "mean", "std", *QUANTILES)]
        columns.append((f"stats/{key}/count", pa.list_(number)))
    columns += [(f"meta/episodes/{name}", number) for name in ("chunk_index", "file_index")]
    return pa.schema(columns)


def write_info(root: Path, outline: Outline, limits: Limits, formats: Mapping[str, str]) -> None:
    """meta/info.json; ``formats``: pixel format of every video."""
    rate = outline.specs.policy_rate
    fps = int(rate) if rate == int(rate) else rate
    for key, pixel_format in formats.items():
        height, width, channels = outline.features[key]["shape"]
        facts = {"height": height, "width": width, "codec": limits.codec, "pix_fmt": pixel_format}
        facts.update(is_depth_map=False, fps=fps, channels=channels)
        outline.features[key]["info"] = {**{f"video.{k}": v for k, v in facts.items()}, "has_audio": False}
    info = {
        "codebase_version": VERSION,
        "robot_type": outline.specs.robot or None,
        "total_episodes": len(outline.lengths),
        "total_frames": sum(outline.lengths.values()),
        "total_tasks": len(outline.tasks),
        "chunks_size": files.CHUNKS_SIZE,
        "data_files_size_in_mb": limits.data_mb,
        "video_files_size_in_mb": limits.video_mb,
        "fps": fps,
        "splits": {"train": f"0:{len(outline.lengths)}"},
        "data_path": files.DATA_PATH,
        "video_path": files.VIDEO_PATH if formats else None,
        "features": outline.features,
    }
    write_json(root / "meta" / "info.json", info)


def write_tasks(root: Path, tasks: list[str]) -> None:
    """meta/tasks.parquet, whose texts are the index of a pandas frame."""
    index = "__index_level_0__"
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())}
    )
    column = {"metadata": None, "name": "task_index", "field_name": "task_index"}
    label = {"metadata": None, "name": None, "field_name": index}
    described = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {**column, "pandas_type": "int64", "numpy_type": "int64"},
            {**label, "pandas_type": "unicode", "numpy_type": "object"},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    pq.write_table(
        table.replace_schema_metadata({"pandas": json.dumps(described)}), root / "meta/tasks.parquet"
    )


def write_json(path: Path, tree: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")

"""An opened LeRobot dataset: its episodes, rows and camera frames in step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ImportFormatError
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.importers._boundary import IMAGE_BLOCK, STATE_BLOCK
from robopolicy.datasets.importers._frames import action_values, make_specs, observation_values
from robopolicy.datasets.importers.lerobot.layout import ROW_KEYS, EpisodePlace, Feature, Layout
from robopolicy.datasets.importers.lerobot.mapping import SUCCESS, Plan
from robopolicy.datasets.importers.lerobot.rows import Rows, column
from robopolicy.datasets.importers.lerobot.video import read_clip, read_image
from robopolicy.datasets.importers.mapping import ObservationMap
from robopolicy.datasets.importers.source import SourceEpisode

LARGEST_STEP_S = 9e9  # more seconds than int64 nanoseconds hold


class LeRobotSource:
    """A dataset as specs, report and episodes; see ``source.Source``."""

    def __init__(self, layout: Layout, plan: Plan, episodes: list[EpisodePlace]) -> None:
        self.report = plan.report
        self._layout, self._plan, self._episodes = layout, plan, episodes
        arrays = {
            key: ((0, *feature.shape), feature.numpy)
            for key, feature in layout.features.items()
            if feature.numpy is not None
        }
        self.specs = make_specs(plan.mapping, arrays, str(layout.root))
        used = {*plan.mapping.sources, *plan.extra.values(), *ROW_KEYS, SUCCESS}
        self._numbers: dict[str, Feature] = {
            key: layout.features[key]
            for key in layout.features
            if key in used and layout.features[key].dtype not in ("video", "image")
        }
        self._open: dict[tuple[str, ...], Rows] = {}

    def __len__(self) -> int:
        return len(self._episodes)

    def close(self) -> None:
        for rows in self._open.values():
            rows.close()
        self._open.clear()

    def episodes(self) -> Iterator[SourceEpisode]:
        for place in self._episodes:
            yield self._episode(place)

    def _episode(self, place: EpisodePlace) -> SourceEpisode:
        where = f"{place.path}, episode {place.index}"
        rows = self._rows(place.path, tuple(self._numbers), STATE_BLOCK)
        batches = list(rows.read(place.start, place.start + place.length))
        values = {key: column(batches, key, feature, where) for key, feature in self._numbers.items()}
        _check_rows(values, place, where)
        seconds = values["timestamp"].reshape(-1).astype(np.float64)
        time_ns = _nanoseconds(seconds, where)
        mapping = self._plan.mapping
        signals: dict[str, Iterable[Signal]] = {}
        for name, part in mapping.observation.items():
            key = f"observation/{name}"
            if part.kind == "image":
                signals[key] = self._camera(part, place, seconds, time_ns)
            else:
                signals[key] = [Signal(observation_values(part, values[part.source], where), time_ns)]
        count = place.length - mapping.action.ahead
        if count < 1:
            raise ImportFormatError(
                f"{where}: {place.length} frames, the action is {mapping.action.ahead} ahead"
            )
        pieces = mapping.action.pieces
        action = action_values(pieces, [values[piece.source] for piece in pieces])[mapping.action.ahead :]
        signals["action"] = [Signal(action, time_ns[:count])]
        for name, source in self._plan.extra.items():
            flat = values[source]
            signals[f"extra/{name}"] = [Signal(flat[:, 0] if flat.shape[1:] == (1,) else flat, time_ns)]
        return SourceEpisode(f"episode {place.index}", signals, self._facts(place, values, where))

    def _facts(self, place: EpisodePlace, values: dict[str, NDArray[Any]], where: str) -> dict[str, Any]:
        task = int(values["task_index"].reshape(-1)[0]) if "task_index" in values else None
        tasks = self._layout.tasks
        if task is not None and task not in tasks:
            raise ImportFormatError(
                f"{where}: task_index {task} is not in the task table, which has {sorted(tasks)}"
            )
        metadata: dict[str, Any] = {"source_episode": place.index}
        if len(place.tasks) > 1:
            metadata["tasks"] = list(place.tasks)
        facts: dict[str, Any] = {
            "instruction": self._plan.mapping.instruction or ("" if task is None else tasks[task]),
            "clock": "frame_index",
        }
        if SUCCESS in values:
            facts["success"] = bool(values[SUCCESS].any())
        own = dict(self._plan.facts[place.index]) if self._plan.facts else {}
        metadata.update(own.pop("metadata", {}))
        return {**facts, **own, "metadata": metadata}

    def _rows(self, path: Path, columns: tuple[str, ...], block: int) -> Rows:
        rows = self._open.get(columns)
        if rows is None or rows.path != path:
            if rows is not None:
                rows.close()
            rows = self._open[columns] = Rows(path, columns, block)
        return rows

    def _camera(
        self,
        part: ObservationMap,
        place: EpisodePlace,
        seconds: NDArray[np.float64],
        time_ns: NDArray[np.int64],
    ) -> Iterator[Signal]:
        feature = self._layout.features[part.source]
        where = f"episode {place.index}, {part.source}"
        if feature.dtype == "video":
            blocks = read_clip(place.clips[part.source], seconds, 1 / self._layout.fps, feature.shape, where)
        else:
            blocks = self._images(part.source, place, feature.shape)
        first = 0
        for pixels in blocks:
            yield Signal(pixels, time_ns[first : first + len(pixels)])
            first += len(pixels)

    def _images(self, key: str, place: EpisodePlace, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
        first, where = 0, f"{place.path}, episode {place.index}, {key}"
        for batch in self._rows(place.path, (key,), IMAGE_BLOCK).read(
            place.start, place.start + place.length
        ):
            content = batch.column(0).to_pylist()
            yield np.stack(
                [read_image(c, shape, f"{where}, frame {first + i}") for i, c in enumerate(content)]
            )
            first += len(content)


def _check_rows(values: dict[str, NDArray[Any]], place: EpisodePlace, where: str) -> None:
    """The rows must be those that the meta folder promises there."""
    due = {"episode_index": np.full(place.length, place.index), "frame_index": np.arange(place.length)}
    for key, expected in due.items():
        found = values[key].reshape(-1) if key in values else expected
        wrong = np.flatnonzero(found != expected)
        if wrong.size:
            at = int(wrong[0])
            raise ImportFormatError(
                f"{where}, {key}: row {at} says {found[at]}, {expected[at]} belongs there"
            )


def _nanoseconds(seconds: NDArray[np.float64], where: str) -> NDArray[np.int64]:
    if np.abs(seconds).max() > LARGEST_STEP_S:
        raise ImportFormatError(f"{where}, timestamp: {np.abs(seconds).max()} s is no time within an episode")
    time_ns = np.round(seconds * 1e9).astype(np.int64)
    backwards = np.flatnonzero(np.diff(time_ns) <= 0)
    if backwards.size:
        raise ImportFormatError(f"{where}, timestamp, frame {backwards[0] + 1}: time does not increase")
    return time_ns

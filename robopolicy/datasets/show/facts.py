"""The numbers of a dataset page, gathered with one episode in memory at a time and no pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.reader import EpisodeReader
from robopolicy.datasets.show import dimensions
from robopolicy.datasets.store import EpisodeStore

SPARK_POINTS = 40
MAX_SAMPLES = 400  # per episode and signal, evenly spread: enough for a histogram, and bounds memory


@dataclass
class Rate:
    """Measured times of one signal, over the episodes looked at.

    Args:
        intervals: median interval of each episode [s].
        longest: longest interval of any episode [s].
        episode: where that was.
    """

    intervals: list[float] = field(default_factory=list)
    longest: float = 0.0
    episode: str = ""

    def add(self, name: str, time_ns: NDArray[np.int64]) -> None:
        if len(time_ns) < 2:
            return
        intervals = np.diff(time_ns) * 1e-9
        self.intervals.append(float(np.median(intervals)))
        if intervals.max() > self.longest:
            self.longest, self.episode = float(intervals.max()), name

    @property
    def hertz(self) -> float | None:
        return 1.0 / float(np.median(self.intervals)) if self.intervals else None


@dataclass(frozen=True)
class Row:
    """One episode in the table.

    Args:
        duration: [s], its last step included.
        activity: (points,) how fast the commands changed, in standard deviations per second.
    """

    name: str
    length: int
    duration: float
    instruction: str
    success: bool | None
    activity: NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What was seen.

    Args:
        every: facts of every episode, by name, as ``EpisodeStore.facts`` gives them.
        rows: the episodes whose signals were read.
        action: (samples, action_dim) of those.
        rates: by signal name.
        positions: per plane, (samples, 2) positions, and (points, 2) first and last ones.
    """

    every: dict[str, dict[str, Any]]
    rows: list[Row]
    action: NDArray[np.float32]
    rates: dict[str, Rate]
    positions: list[tuple[dimensions.Plane, NDArray[Any], NDArray[Any], NDArray[Any]]]
    extras: dict[str, tuple[tuple[int, ...], str]]


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the names, evenly spread, first and last included."""
    if len(names) <= count:
        return list(names)
    places = np.unique(np.linspace(0, len(names) - 1, max(count, 1)).round().astype(int))
    return [names[place] for place in places]


def gather(store: EpisodeStore, max_episodes: int) -> Facts:
    """Facts of all episodes; signals of at most ``max_episodes``, evenly spread."""
    specs, every = store.specs, {name: store.facts(name) for name in store.names}
    states = tuple(key for key, spec in specs.observation.items() if spec.kind == "state")
    planes = dimensions.planes(specs)
    visits: list[list[NDArray[Any]]] = [[] for _ in planes]
    rates: dict[str, Rate] = {}
    extras: dict[str, tuple[tuple[int, ...], str]] = {}
    rows, actions, changes = [], [], []
    for name in spread(store.names, max_episodes):
        reader = store.reader(name)
        for key in reader.signals:
            rates.setdefault(key, Rate()).add(name, reader.times(key))
            if key.startswith("extra/"):
                extras[key] = extra_shape(reader, key)
        episode = reader.episode(states, ())
        actions.append(_thin(episode.action.value))
        changes.append(_changes(episode))
        rows.append(
            Row(name, len(episode), _duration(episode, specs), episode.instruction, episode.success, _none())
        )
        for visit, plane in zip(visits, planes):
            visit.append(_positions(episode, plane))
    action = np.concatenate(actions) if actions else np.zeros((0, specs.action.dim), np.float32)
    scale = np.where(action.std(axis=0) > 0, action.std(axis=0), np.inf) if len(action) else np.ones(1)
    rows = [Row(**{**vars(row), "activity": _activity(c, scale)}) for row, c in zip(rows, changes)]
    positions = [_visited(plane, visit) for plane, visit in zip(planes, visits) if visit]
    return Facts(every, rows, action, rates, positions, extras)


def extra_shape(reader: EpisodeReader, name: str) -> tuple[tuple[int, ...], str]:
    """Shape of one sample and dtype of a signal, without reading it."""
    metadata = reader.arrays[f"{name}/value"]
    return tuple(metadata["shape"][1:]), str(metadata["data_type"])


def _none() -> NDArray[np.float64]:
    return np.zeros(0)


def _thin(value: NDArray[Any]) -> NDArray[Any]:
    return value[:: -(-len(value) // MAX_SAMPLES)] if len(value) else value


def _duration(episode: Episode, specs: Specs) -> float:
    span = float(episode.action.time_ns[-1] - episode.action.time_ns[0]) * 1e-9 if len(episode) else 0.0
    return span + 1.0 / specs.policy_rate


def _changes(episode: Episode) -> NDArray[np.float64]:
    """(<= SPARK_POINTS, action_dim) mean absolute rate of change, in time order."""
    if len(episode) < 2:
        return np.zeros((0, episode.action.value.shape[1]))
    seconds = np.diff(episode.action.time_ns)[:, None] * 1e-9
    speed = np.abs(np.diff(episode.action.value.astype(np.float64), axis=0)) / seconds
    return np.stack([part.mean(axis=0) for part in np.array_split(speed, min(SPARK_POINTS, len(speed)))])


def _activity(changes: NDArray[np.float64], scale: NDArray[Any]) -> NDArray[np.float64]:
    return np.sqrt(np.mean((changes / scale) ** 2, axis=1)) if len(changes) else _none()


def _positions(episode: Episode, plane: dimensions.Plane) -> NDArray[Any]:
    """(samples, points, 2): several points where the signal has rows, as keypoints do."""
    value = episode.observation[plane.key].value[..., list(plane.columns)]
    return value.reshape(len(value), -1, 2)


def _visited(
    plane: dimensions.Plane, visits: list[NDArray[Any]]
) -> tuple[dimensions.Plane, NDArray[Any], NDArray[Any], NDArray[Any]]:
    points = np.concatenate([_thin(visit).reshape(-1, 2) for visit in visits])
    starts = np.concatenate([visit[0] for visit in visits])
    return plane, points, starts, np.concatenate([visit[-1] for visit in visits])

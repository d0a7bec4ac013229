"""Which of the conditions varied on purpose go with success, and tables of success over them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.evaluation.results import EpisodeResult

MOST_BINS = 5
MOST_CATEGORIES = 8
EPISODES_PER_CELL = 6  # on average, below which a map says more about luck than about the policy


@dataclass(frozen=True)
class Axis:
    """One condition cut into bins.

    Args:
        labels: of the bins; numbers as "low – high", or the values themselves where there are few.
        edges: (bins - 1,) inner edges of a number; empty for categories.
        values: of the bins of a category; empty for numbers.
    """

    name: str
    labels: tuple[str, ...]
    edges: tuple[float, ...] = ()
    values: tuple[Any, ...] = ()

    def bins_of(self, episodes: Sequence[EpisodeResult]) -> NDArray[np.int64]:
        """(n,) bin of each episode; -1 where it lacks the condition or has a value never seen."""
        found = []
        for episode in episodes:
            value = episode.conditions.get(self.name)
            if value is None:
                found.append(-1)
            elif self.values:
                found.append(self.values.index(value) if value in self.values else -1)
            else:
                found.append(int(np.searchsorted(self.edges, float(value), side="right")))
        return np.array(found, dtype=np.int64)


@dataclass(frozen=True)
class Map:
    """Successes and counts over two conditions; ``down`` and ``across`` index the rows and columns."""

    down: Axis
    across: Axis


def axes_of(episodes: Sequence[EpisodeResult], bins: int = MOST_BINS) -> list[Axis]:
    """Every condition that takes at least two values, in bins of equal counts; by name.

    Texts with more than ``MOST_CATEGORIES`` values, names and hashes most likely, are left out.
    """
    names = sorted({name for episode in episodes for name in episode.conditions})
    found = []
    for name in names:
        values = [e.conditions[name] for e in episodes if name in e.conditions]
        axis = _axis(name, values, bins)
        if axis is not None:
            found.append(axis)
    return found


def _axis(name: str, values: list[Any], bins: int) -> Axis | None:
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    distinct = sorted(set(values)) if numeric else sorted(set(values), key=str)
    if len(distinct) < 2 or (not numeric and len(distinct) > MOST_CATEGORIES):
        return None
    if not numeric or len(distinct) <= bins:
        return Axis(name, tuple(number(v) for v in distinct), values=tuple(distinct))
    inner = np.quantile(np.asarray(values, dtype=np.float64), np.linspace(0, 1, bins + 1)[1:-1])
    edges = [float(e) for e in np.unique(inner) if distinct[0] < e <= distinct[-1]]
    ends = [float(distinct[0]), *edges, float(distinct[-1])]
    labels = tuple(f"{number(a)} – {number(b)}" for a, b in itertools.pairwise(ends))
    return Axis(name, labels, edges=tuple(edges)) if edges else None


def number(value: Any) -> str:
    """Three significant digits, or the text itself."""
    return f"{value:.3g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def epsilon_squared(success: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """Share of the variance of success that a grouping explains, corrected for its number of groups.

    About 0 for a grouping that has nothing to do with success, however fine; 1 when it decides it.

    Args:
        success, groups: (n,); negative groups are left out.
    Source: Kelley 1935, "An unbiased correlation ratio measure".
    """
    kept = groups >= 0
    outcome, labels = success[kept].astype(np.float64), groups[kept]
    distinct = np.unique(labels)
    total = float(np.sum((outcome - outcome.mean()) ** 2)) if len(outcome) else 0.0
    if total == 0 or len(distinct) < 2 or len(outcome) <= len(distinct):
        return 0.0
    within = sum(float(np.sum((outcome[labels == g] - outcome[labels == g].mean()) ** 2)) for g in distinct)
    mean_within = within / (len(outcome) - len(distinct))
    return (total - within - (len(distinct) - 1) * mean_within) / total


def choose(
    episodes: Sequence[EpisodeResult], *, in_map: int | None = None, most_maps: int = 2, most_bars: int = 4
) -> tuple[list[Map], list[Axis]]:
    """The pairs of conditions, each condition in one pair only, and the single ones that say most.

    Ranked by ``epsilon_squared``. A map is drawn only where its cells hold enough episodes; conditions in
    no map are left for bars.

    Args:
        in_map: episodes that one map will hold; all by default.
    """
    drawn = len(episodes) if in_map is None else in_map
    success = np.array([e.success for e in episodes], dtype=bool)
    bars = _ranked([((axis,), axis.bins_of(episodes)) for axis in axes_of(episodes)], success)
    side = int(np.clip(np.sqrt(drawn / EPISODES_PER_CELL), 1, MOST_BINS))
    coarse = axes_of(episodes, side) if side >= 2 else []
    pairs: list[tuple[tuple[Axis, ...], NDArray[np.int64]]] = []
    for down, across in itertools.combinations(coarse, 2):
        if len(down.labels) * len(across.labels) * EPISODES_PER_CELL > drawn:
            continue
        first, second = down.bins_of(episodes), across.bins_of(episodes)
        cells = np.where((first < 0) | (second < 0), -1, first * len(across.labels) + second)
        pairs.append(((down, across), cells))
    maps: list[Map] = []
    used: set[str] = set()
    for down, across in _ranked(pairs, success):
        if len(maps) < most_maps and not used & {down.name, across.name}:
            maps.append(Map(down, across) if len(down.labels) <= len(across.labels) else Map(across, down))
            used |= {down.name, across.name}
    return maps, [axis for (axis,) in bars if axis.name not in used][:most_bars]


def _ranked(
    candidates: list[tuple[tuple[Axis, ...], NDArray[np.int64]]], success: NDArray[np.bool_]
) -> list[tuple[Axis, ...]]:
    """Most telling first; names break ties, so that two runs draw the same page."""
    scored = [
        (-epsilon_squared(success, groups), [a.name for a in axes], axes) for axes, groups in candidates
    ]
    return [axes for _, _, axes in sorted(scored, key=lambda item: item[:2])]


def counts(episodes: Sequence[EpisodeResult], down: Axis, across: Axis | None = None) -> NDArray[np.int64]:
    """(rows, columns, 2) successes and episodes of every cell; one column without ``across``."""
    table = np.zeros((len(down.labels), len(across.labels) if across else 1, 2), dtype=np.int64)
    columns = across.bins_of(episodes) if across else np.zeros(len(episodes), dtype=np.int64)
    for episode, row, column in zip(episodes, down.bins_of(episodes), columns):
        if row >= 0 and column >= 0:
            table[row, column] += (int(episode.success), 1)
    return table


def shown(conditions: Mapping[str, Any], most: int = 4) -> str:
    """A few conditions in one line: "payload 0.21, delay_ms 80"."""
    parts = [f"{name} {number(value)}" for name, value in sorted(conditions.items())]
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")

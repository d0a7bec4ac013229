"""Which two numbers of the first observation to draw episodes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs
from robopolicy.datasets.show.dimensions import labels, planes, units
from robopolicy.evaluation.results import EpisodeResult

NARROW = 0.3  # of the widest spread, below which a plane shows the scatter of a start, not its choice
RELATIVE = "_in_"
STILL = 1e-6  # spread below which nothing was varied, in whatever unit


@dataclass(frozen=True)
class StartPlane:
    """Two numbers of every episode's start.

    Args:
        points: (n, 2), row i of episode i.
        labels: of the two columns, with units.
        seen_from: "above" for metres, "image" for pixels, empty for other numbers; see ``plots.outcomes``.
    """

    title: str
    points: NDArray[np.float64]
    labels: tuple[str, str]
    seen_from: str


def start_planes(specs: Specs, episodes: Sequence[EpisodeResult], most: int = 2) -> list[StartPlane]:
    """Positions that differ between the episodes, the widest spread first.

    A place that is told relative to something else, by its name ("cube_pose_in_tool"), is drawn only for want
    of another. Where no observation is a position, the two state numbers that vary most; nothing when the
    episodes lack a common start.
    """
    keys = set.intersection(*(set(e.start) for e in episodes)) if episodes else set()
    found = [
        StartPlane(
            plane.title,
            _columns(episodes, plane.key, plane.columns),
            (f"x [{plane.unit}]", f"y [{plane.unit}]"),
            "image" if plane.unit == "px" else ("" if RELATIVE in plane.key else "above"),
        )
        for plane in planes(specs)
        if plane.key in keys and len(specs.observation[plane.key].shape) == 1
    ]
    for key in sorted(keys - set(specs.observation)):  # what a person set up by hand
        if np.ndim(episodes[0].start[key]) == 1 and len(episodes[0].start[key]) >= 2:
            points = _columns(episodes, key, (0, 1))
            found.append(StartPlane(key, points, ("x [m]", "y [m]"), "above"))
    moving = [plane for plane in found if _spread(plane) > STILL]
    moving = [plane for plane in moving if RELATIVE not in plane.title] or moving
    if moving:
        widest = max(map(_spread, moving))
        moving = [plane for plane in moving if _spread(plane) > NARROW * widest]
        return sorted(moving, key=lambda plane: (-_spread(plane), plane.title))[:most]
    return _widest_pair(specs, episodes, keys)


def _columns(episodes: Sequence[EpisodeResult], key: str, columns: tuple[int, int]) -> NDArray[np.float64]:
    return np.array([[e.start[key][c] for c in columns] for e in episodes], dtype=np.float64)


def _spread(plane: StartPlane) -> float:
    return float(np.sum(np.ptp(plane.points, axis=0)))


def _widest_pair(specs: Specs, episodes: Sequence[EpisodeResult], keys: set[str]) -> list[StartPlane]:
    columns: list[tuple[float, str, NDArray[np.float64]]] = []
    for key, spec in specs.observation.items():
        if spec.kind != "state" or key not in keys:
            continue
        values = np.array([np.ravel(e.start[key]) for e in episodes], dtype=np.float64)
        named = zip(labels(spec.shape, spec.names), units(spec))
        names = [f"{key} {label} [{unit or '1'}]" for label, unit in named]
        columns += [(float(np.ptp(v)), name, v) for name, v in zip(names, values.T)]
    columns = sorted((c for c in columns if c[0] > STILL), key=lambda c: (-c[0], c[1]))[:2]
    if len(columns) < 2:
        return []
    (_, first, x), (_, second, y) = columns
    return [StartPlane("widest varying", np.stack([x, y], axis=1), (first, second), "")]

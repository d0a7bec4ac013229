"""Commands that sit at their own extreme or at a joint's limit: more was wanted than was possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy import robots
from robopolicy.core.specs import Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.quality.findings import Finding
from robopolicy.datasets.quality.signals import runs
from robopolicy.datasets.quality.summaries import Summary, listed, measured

#: Dimensions that rest at an end on purpose, as (space, unit): open or closed hands, no rotation.
ENDS_ARE_NORMAL = (("gripper_opening", "m"), ("ee_pose", "1"), ("ee_delta", "1"))
#: Share of commands at an extreme that is worth a word; a dimension that is there more often than MOST is a
#: switch with two positions, not a clipped command.
SHARE, MOST = 0.05, 0.6
#: Only stays of at least this many commands count: touching an extreme once is what an extreme is.
STAY = 3
#: Within this of a robot's limit is at it [rad or m].
AT_LIMIT = 1e-3


def measure(name: str, episode: Episode, specs: Specs) -> dict[str, NDArray[np.float64]]:
    """Per action dimension: the extremes, commands that stay at them, and at or beyond a robot's limits."""
    action = episode.action.value.astype(np.float64)
    lowest, highest = action.min(axis=0), action.max(axis=0)
    bounds = _limits(specs)
    over = [
        _staying((c <= low + AT_LIMIT) | (c >= high - AT_LIMIT)) for c, low, high in zip(action.T, *bounds)
    ]
    low_stay = [_staying(column == low) for column, low in zip(action.T, lowest)]
    high_stay = [_staying(column == high) for column, high in zip(action.T, highest)]
    return {
        "count": np.full(len(lowest), float(len(action))),
        "lowest": lowest,
        "highest": highest,
        "low_stay": np.array(low_stay, dtype=np.float64),
        "high_stay": np.array(high_stay, dtype=np.float64),
        "at_limit": np.array(over, dtype=np.float64),
    }


def check_all(summaries: Sequence[Summary], specs: Specs) -> Iterator[Finding]:
    """One note on commands clipped at the dataset's own extremes, one warning on a known robot's limits."""
    every = [m for _, m in measured(summaries, "saturation")]
    if not every:
        return
    stacked: dict[str, Any] = {field: np.stack([m[field] for m in every]) for field in every[0]}
    count = stacked["count"].sum(axis=0)
    low, high = stacked["lowest"].min(axis=0), stacked["highest"].max(axis=0)
    at_low = np.where(stacked["lowest"] == low, stacked["low_stay"], 0).sum(axis=0) / count
    at_high = np.where(stacked["highest"] == high, stacked["high_stay"], 0).sum(axis=0) / count
    at_limit = stacked["at_limit"].sum(axis=0) / count
    normal = {
        n for p in specs.action.parts for n, u in zip(p.names, p.units) if (p.space, u) in ENDS_ARE_NORMAL
    }
    clipped, limited = [], []
    for i, name in enumerate(specs.action.names):
        if name in normal or high[i] == low[i]:
            continue
        if at_limit[i] > SHARE:
            limited.append(f"{name} ({at_limit[i]:.0%})")
        elif max(at_low[i], at_high[i]) > SHARE and at_low[i] + at_high[i] < MOST:
            end, share = max((low[i], at_low[i]), (high[i], at_high[i]), key=lambda pair: pair[1])
            clipped.append(f"{name} ({share:.0%} at {end:.4g})")
    if clipped:
        message = f"commands stay at their own extreme, clipped? {listed(clipped)}"
        yield Finding("note", "saturation", "", "action", message)
    if limited:
        message = f"commands stay at or beyond a position limit of {specs.robot}: {listed(limited)}"
        yield Finding("warning", "saturation", "", "action", message)


def _staying(mask: NDArray[np.bool_]) -> int:
    return sum(last - first + 1 for first, last in runs(mask) if last - first + 1 >= STAY)


def _limits(specs: Specs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper per action dimension, infinite where the robot or the space gives none."""
    lower, upper = np.full(specs.action.dim, -np.inf), np.full(specs.action.dim, np.inf)
    if specs.robot in robots.names():
        joints = {joint.name: joint for joint in robots.load(specs.robot).joints}
        for part, place in specs.action.slices():
            for i, name in enumerate(part.names, start=place.start):
                if part.space == "joint_position" and part.reference == "absolute" and name in joints:
                    lower[i], upper[i] = joints[name].lower, joints[name].upper
    return lower, upper

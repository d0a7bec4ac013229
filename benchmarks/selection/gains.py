"""What choosing gains over the first sample, in points, with an interval over trainings and episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.evaluation.resampling import bootstrap_interval

RESAMPLES = 10_000
METHOD = (
    "two-way bootstrap over training seeds and episode seeds (shared by all trainings), deviations of the "
    "trainings widened by sqrt(S / (S - 1)); hull of percentile and basic interval"
)


@dataclass(frozen=True)
class Gain:
    """Mean paired difference over all trainings and episodes, with its 95 % interval.

    Args:
        by_seed: of each training.
    """

    value: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]


def gain(base: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], what: str) -> Gain | None:
    """Of cells of the same trainings and episodes; None where they have none in common.

    Args:
        what: "outcomes" or "max_reward".
    """
    by_seed = {cell["seed"]: cell[what] for cell in base}
    pairs = [(by_seed[cell["seed"]], cell[what]) for cell in other if cell["seed"] in by_seed]
    if not pairs:
        return None
    episodes = sorted(set.intersection(*(set(table) for pair in pairs for table in pair)))
    differences = np.array([[float(o[e]) - float(b[e]) for e in episodes] for b, o in pairs])
    return two_way(differences)


def two_way(differences: NDArray[np.float64], *, seed: int = 0) -> Gain:
    """Interval of the mean of (trainings, episodes) differences.

    Trainings and episodes are both drawn anew, since a start that is easy is so for every training (crossed
    effects, Owen 2007). The variance of S trainings drawn from S is too small by a factor of (S - 1) / S,
    which is made up for; their deviations hold noise of episodes too, so this errs on the wide side. With one
    training it is the bootstrap over episodes.
    """
    rng = np.random.default_rng(seed)
    trainings, episodes = differences.shape
    counts = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=RESAMPLES)
    means = counts @ differences.T / episodes  # (resamples, trainings)
    replicates = means.mean(axis=1)
    if trainings > 1:
        drawn = rng.integers(trainings, size=(RESAMPLES, trainings))
        centred = means - replicates[:, None]
        widened = np.sqrt(trainings / (trainings - 1))
        replicates = replicates + widened * np.take_along_axis(centred, drawn, axis=1).mean(axis=1)
    point = float(differences.mean())
    interval = bootstrap_interval(replicates, point, bounds=(-1.0, 1.0))
    return Gain(point, interval, tuple(map(float, differences.mean(axis=1))))

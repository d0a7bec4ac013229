"""Bootstrap draws of episodes that are shared by everything measured on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.statistics import Interval

Outcomes = Mapping[int, bool]


def rate(outcomes: Outcomes) -> float:
    """Success rate of episodes by seed; ConfigError without episodes."""
    if not outcomes:
        raise ConfigError("there are no episodes to take a rate of")
    return float(np.mean(list(outcomes.values())))


def seed_sets(tables: Sequence[Outcomes]) -> int:
    """How many different sets of seeds the tables stand on."""
    return len({frozenset(table) for table in tables})


def resampled_rates(
    tables: Sequence[Outcomes], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Success rates of resampled episodes.

    Tables over the same seeds see the same draws, so that what they share (an easy start, say) cancels in
    their differences, as it does in a paired test. Tables over different seeds are drawn apart.

    Returns:
        (resamples, len(tables)).
    """
    draws: dict[frozenset[int], NDArray[np.float64]] = {}
    columns = []
    for table in tables:
        key, seeds = frozenset(table), sorted(table)
        if not seeds:
            raise ConfigError("there are no episodes to resample")
        if key not in draws:
            counts = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=resamples)
            draws[key] = counts.astype(np.float64)
        successes = draws[key] @ np.array([table[seed] for seed in seeds], dtype=np.float64)
        columns.append(successes / len(seeds))  # whole numbers until here, so that ties stay ties
    return np.stack(columns, axis=1)


def bootstrap_interval(
    replicates: NDArray[np.float64], point: float, *, bounds: Interval, confidence: float = 0.95
) -> Interval:
    """Hull of the percentile and the basic bootstrap interval (Efron 1979), cut to what is possible.

    Rank violation and correlation of measured rates are biased: noise adds violations and weakens
    correlation. The percentile interval doubles that bias (it covered a correlation of 0.99 never), the
    basic one misses on the other side; their hull covered 0.94 or more throughout, see docs/statistics.md.

    Args:
        replicates: (resamples,) the statistic on each draw; NaN ones are left out.
        point: the statistic on the data; NaN gives NaN.
        bounds: smallest and largest possible value.
    """
    kept = replicates[~np.isnan(replicates)]
    if not len(kept) or np.isnan(point):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = min(low, 2 * point - high), max(high, 2 * point - low)
    return float(max(low, bounds[0])), float(min(high, bounds[1]))

"""Intervals for success rates and means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from robopolicy.core.errors import ConfigError

Interval = tuple[float, float]


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> Interval:
    """Score interval of a binomial rate (Wilson 1927); holds its level for small counts.

    Raises:
        ConfigError: no trials, or more successes than trials.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ConfigError(f"need 0 <= successes <= count and count >= 1, got {successes} of {count}")
    interval = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: NDArray[np.float64], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Bootstrap interval of a mean (bias-corrected and accelerated, Efron 1987; 10,000 resamples)."""
    if len(values) == 0:
        raise ConfigError("the mean of no values has no interval")
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, method="BCa", rng=np.random.default_rng(seed)
    )
    low, high = (float(v) for v in result.confidence_interval)
    return low, high

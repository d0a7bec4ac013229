"""Choosing by value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError


def select(
    values: NDArray[np.floating], *, temperature: float = 0.0, rng: Sequence[np.random.Generator]
) -> NDArray[np.intp]:
    """Choose one candidate for each row: p(i) = exp(value_i / temperature) / sum over the row.

    Args:
        values: (batch, n); those that are not finite are never chosen.
        temperature: 0 takes the best, the first of equals.
        rng: source of randomness of each row.
    Returns:
        (batch,) index, or -1 where no value is finite.
    Raises:
        ConfigError: a negative temperature.
    Source: V-GPS (Nakamoto et al. 2024), eq. 3.
    """
    if not temperature >= 0:
        raise ConfigError(f"temperature must be >= 0, got {temperature}")
    usable = np.isfinite(values)
    kept = np.where(usable, values, -np.inf).astype(np.float64)
    index = kept.argmax(axis=1)
    if temperature > 0:
        for row in np.flatnonzero(usable.any(axis=1)).tolist():
            # The largest is taken off first: it leaves the shares alone and nothing overflows.
            with np.errstate(over="ignore"):  # of a tiny temperature: minus infinity is what it means
                weights = np.exp((kept[row] - kept[row].max()) / temperature)
            index[row] = rng[row].choice(len(weights), p=weights / weights.sum())
    return np.where(usable.any(axis=1), index, -1)

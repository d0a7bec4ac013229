"""Mean, spread and quantiles of data that is seen once, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Most numbers that a ``Sample`` keeps: 64 MiB of float64.
KEPT = 8 << 20


class Moments:
    """Running mean, standard deviation and extremes, per column.

    Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1: blocks are
    merged by their own means, so that a large offset costs no digits.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.min = self.max = self._squares = np.zeros(0)

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in (count, columns) finite values; no rows is fine."""
        count = len(values)
        if not count:
            return
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        lowest, highest = values.min(axis=0), values.max(axis=0)
        if not self.count:
            self.count, self.mean, self._squares = count, mean, squares
            self.min, self.max = lowest, highest
            return
        total, apart = self.count + count, mean - self.mean
        self._squares = self._squares + squares + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.min, self.max = np.minimum(self.min, lowest), np.maximum(self.max, highest)
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """(columns,) standard deviation of the population."""
        return np.sqrt(self._squares / max(self.count, 1))


class Sample:
    """All rows while they fit, every second when they do not, every fourth, ...: even, and without chance.

    Args:
        keep: most numbers to keep.
    """

    def __init__(self, keep: int = KEPT) -> None:
        self._keep = keep
        self._stride = 1
        self._seen = 0
        self._rows: list[NDArray[np.float64]] = []
        self._numbers = 0

    @property
    def exact(self) -> bool:
        """Whether every row is still here."""
        return self._stride == 1

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in (count, columns) values."""
        rows = values[-self._seen % self._stride :: self._stride].copy()
        self._seen += len(values)
        self._rows.append(rows)
        self._numbers += rows.size
        while self._numbers > self._keep:
            kept = np.concatenate(self._rows)
            if len(kept) < 2:
                return  # one row alone is wider than the limit; it stays
            self._rows = [kept[::2].copy()]
            self._stride *= 2
            self._numbers = self._rows[0].size

    def quantiles(self, levels: Sequence[float]) -> NDArray[np.float64]:
        """(levels, columns), linearly interpolated."""
        return np.quantile(np.concatenate(self._rows), levels, axis=0)

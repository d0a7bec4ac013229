"""A paired comparison that may be looked at after every episode and stopped at any time.

A gambler who bets on the next difference x in {-1, 0, 1} (other succeeds minus baseline succeeds), at odds
that are fair if its mean is delta, cannot get rich unless the mean differs: his wealth is a non-negative
martingale, and exceeds 1 / alpha with probability at most alpha, however long one looks (Ville 1939). We
spread his money evenly over all bets:

    W(delta) = mean over u in (-1, 1) of prod_i (1 + lambda(u, delta) (x_i - delta)),
    lambda = u / (1 + delta) for u > 0, u / (1 - delta) for u < 0,

Cover's universal portfolio, as used for confidence sequences by Waudby-Smith and Ramdas (2024) and Orabona
and Jun (2021). At delta = 0 it is the Beta(1, 1) mixture likelihood ratio of the discordant pairs,
2^(g + l) g! l! / (g + l + 1)!, the classical test of Robbins (1970) under McNemar's null hypothesis. It is
convex in delta, so {delta: W < 1 / alpha} is an interval, and the running intersection of these covers the
true difference at all times at once with probability 1 - alpha: a confidence sequence that excludes 0 just
when the test rejects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logsumexp

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.statistics import Interval

UNDECIDED, BETTER, WORSE, ALIKE = "undecided", "better", "worse", "alike"
#: Differences at which wealth is tracked; intervals are widened outwards to the next one.
GRID = np.arange(-200, 201) / 200
ZERO = len(GRID) // 2
#: Gauss-Legendre nodes: the mean over bets is exact for up to 199 discordant pairs, a valid mixture beyond.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)


def log_e_value(gains: NDArray[np.int64] | int, losses: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Natural logarithm of 2^(g + l) g! l! / (g + l + 1)!, the evidence against equal rates."""
    pairs = np.asarray(gains) + np.asarray(losses)
    value: NDArray[np.float64] = betaln(1 + np.asarray(gains), 1 + np.asarray(losses)) + pairs * math.log(2)
    return value


def _log_factors() -> dict[int, NDArray[np.float64]]:
    """For x in -1, 0, 1 the log of what each bet (nodes) at each inner difference (grid) turns 1 into."""
    delta = GRID[1:-1, None]
    bet = np.where(NODES > 0, NODES / (1 + delta), NODES / (1 - delta))
    return {x: np.log1p(bet * (x - delta)) for x in (-1, 0, 1)}


LOG_FACTORS = _log_factors()


@dataclass(frozen=True)
class Evidence:
    """What the pairs so far say of other - baseline.

    Args:
        p_value: anytime-valid: 1 / the largest e-value so far.
        interval: of the confidence sequence; may be read after every pair.
        decision: "better", "worse", "alike" (no larger than the margin), or "undecided".
    """

    pairs: int
    gains: int
    losses: int
    e_value: float
    p_value: float
    difference: float
    interval: Interval
    decision: str


class PairedSequence:
    """Evidence that grows pair by pair.

    Args:
        alpha: chance of ever claiming a difference where there is none, or an interval that ever misses.
        margin: differences no larger than this do not matter: stop once the interval lies within; 0 never
            stops for that.
    """

    def __init__(self, *, alpha: float = 0.05, margin: float = 0.0) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha must lie in (0, 1), got {alpha}")
        if not 0 <= margin < 1:
            raise ConfigError(f"the margin must lie in [0, 1), got {margin}")
        self.alpha, self.margin = alpha, margin
        self.gains = self.losses = self.pairs = 0
        self._log_wealth = np.tile(np.log(WEIGHTS / 2), (len(GRID) - 2, 1))
        self._alive = np.ones(len(GRID), dtype=np.bool_)
        self._interval: Interval = (-1.0, 1.0)
        self._largest = 0.0  # log of the largest e-value
        self._decision = UNDECIDED

    def add(self, *, baseline: bool, other: bool) -> None:
        """One more pair."""
        x = int(other) - int(baseline)
        self.pairs += 1
        self.gains += x > 0
        self.losses += x < 0
        self._largest = max(self._largest, float(log_e_value(self.gains, self.losses)))
        self._log_wealth += LOG_FACTORS[x]
        total = logsumexp(self._log_wealth, axis=1)
        self._alive[1:-1] &= total < -math.log(self.alpha)
        self._alive[0] &= x == -1  # a mean of -1 or 1 allows nothing else
        self._alive[-1] &= x == 1
        self._narrow()
        if self._decision == UNDECIDED:
            self._decision = self._decide()

    def _narrow(self) -> None:
        (alive,) = np.nonzero(self._alive)
        if len(alive):  # else the truth lies between two points of the grid, inside the last interval
            low, high = max(alive[0] - 1, 0), min(alive[-1] + 1, len(GRID) - 1)
            self._interval = float(GRID[low]), float(GRID[high])

    def _decide(self) -> str:
        if self._largest >= -math.log(self.alpha):
            return BETTER if self.gains > self.losses else WORSE
        low, high = self._interval
        return ALIKE if self.margin and -self.margin <= low and high <= self.margin else UNDECIDED

    @property
    def evidence(self) -> Evidence:
        """As of now; ConfigError before the first pair."""
        if not self.pairs:
            raise ConfigError("there are no pairs yet")
        return Evidence(
            pairs=self.pairs,
            gains=self.gains,
            losses=self.losses,
            e_value=float(np.exp(log_e_value(self.gains, self.losses))),
            p_value=math.exp(-self._largest),
            difference=(self.gains - self.losses) / self.pairs,
            interval=self._interval,
            decision=self._decision,
        )

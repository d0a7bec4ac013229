"""How old what arrives is, tick by tick."""

from __future__ import annotations

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy_sim.simulation import CONTROL_RATE


class Delay:
    """Age in control ticks of what arrives at each tick, fractions included.

    Args:
        delay: mean age [s].
        jitter: standard deviation of a change to it, drawn at every policy step [s].
        ticks_per_step: of a policy step.
        length: ticks for which jitter is drawn; later ones repeat the last.
        rng: of the jitter.

    The age never grows by more than a tick a tick: nothing arrives before what was sent earlier.
    """

    def __init__(
        self, delay: float, jitter: float, *, ticks_per_step: int, length: int, rng: np.random.Generator
    ) -> None:
        if delay < 0 or jitter < 0:
            raise ConfigError(f"delay and jitter must be >= 0 s, got {delay} and {jitter}")
        if jitter == 0:
            self._ages: Float = np.array([delay * CONTROL_RATE])
        else:
            steps = -(-length // ticks_per_step)
            drawn = np.maximum(delay + jitter * rng.standard_normal(steps), 0.0) * CONTROL_RATE
            ticks = np.arange(length, dtype=np.float64)
            arrived = np.maximum.accumulate(ticks - np.repeat(drawn, ticks_per_step)[:length])
            self._ages = ticks - arrived
        self.any = bool(self._ages.max() > 0)

    @property
    def window(self) -> int:
        """How many past values are needed, the newest included."""
        return int(np.ceil(self._ages.max())) + 1

    def at(self, tick: int) -> tuple[int, float]:
        """Whole and fractional age at a tick: between that many and one more ticks ago."""
        age = float(self._ages[min(tick, len(self._ages) - 1)])
        whole = int(age)
        return whole, age - whole

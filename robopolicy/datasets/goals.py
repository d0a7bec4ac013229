"""Which instant of an episode is a training window's goal.

From the end of the episode, or from any later instant, which makes every instant of every demonstration an
example of how to get somewhere (hindsight relabelling, Andrychowicz et al. 2017, section 4.5 "future"; for
imitation, Ding et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError

SAMPLINGS = ("final", "future")


@dataclass(frozen=True)
class GoalConfig:
    """Where the goals "goal.KEY" of training windows come from.

    Args:
        sampling: "final", the last step of the episode; or "future", any later step of it, all equally
            likely and drawn anew every epoch.
    Raises:
        ConfigError: another sampling; lists these.
    """

    sampling: str = "final"

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise ConfigError(f"goal sampling {self.sampling!r} is not one of {SAMPLINGS}")


def steps_of_goals(
    current: NDArray[np.int64], last: NDArray[np.int64], ahead: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """Which step is each window's goal.

    Args:
        current, last: (batch,) steps of the windows and of the ends of their episodes.
        ahead: (batch,) uniform in [0, 1); None takes the ends.
    Returns:
        (batch,) steps later than ``current``, all equally likely; at the end, the end.
    """
    if ahead is None:
        return last
    drawn: NDArray[np.int64] = np.minimum(current + 1 + (ahead * (last - current)).astype(np.int64), last)
    return drawn


def constant(value: NDArray[Any], observation_horizon: int) -> NDArray[Any]:
    """(batch, *shape) goals as (batch, observation_horizon, *shape), a new array."""
    return np.repeat(value[:, None], observation_horizon, axis=1)

"""What a critic expects of each candidate; its ensemble is read with caution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.critic import Critic
from robopolicy.core.errors import ConfigError, ShapeError, SpecError, UnknownNameError
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.situation import Situation

PESSIMISM = ("min", "mean", "std")


@dataclass(frozen=True)
class Config:
    """How the members of an ensemble become one value.

    Args:
        pessimism: their "min", as V-GPS and clipped double Q-learning take it, their "mean", or "std": the
            mean less ``std_weight`` standard deviations.
        std_weight: [-].
    """

    pessimism: str = "min"
    std_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.pessimism not in PESSIMISM:
            raise UnknownNameError("pessimism", self.pessimism, PESSIMISM)
        if not 0 <= self.std_weight < math.inf:
            raise ConfigError(f"std_weight must be finite and >= 0, got {self.std_weight}")


def build(
    config: Config, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> CriticScore:
    """SpecError without a critic."""
    if critic is None:
        raise SpecError("the score 'critic' needs a critic, and neither policy nor settings bring one")
    return CriticScore(critic, config)


class CriticScore:
    """A ``Score``: expected discounted return of each candidate [-]."""

    name = "critic"
    unit = "return"

    def __init__(self, critic: Critic, config: Config | None = None) -> None:
        self._critic, self._config = critic, config or Config()

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """(batch, n); NaN where any member is, since the others cannot vouch for it."""
        keys = self._critic.critic_specs.specs.observation
        observation = {name: situation.observation[name] for name in keys}
        values = np.asarray(self._critic.values(observation, candidates, situation.context), np.float64)
        if values.ndim != 3 or values.shape[:2] != candidates.shape[:2]:
            raise ShapeError(
                f"a critic gives (batch, n, members) values of {candidates.shape[:2]} candidates, "
                f"got {values.shape}"
            )
        return pessimistic(np.where(np.isfinite(values), values, np.nan), self._config)


def pessimistic(values: NDArray[np.float64], config: Config) -> NDArray[np.float64]:
    """(..., members) to (...)."""
    result: NDArray[np.float64]
    if config.pessimism == "min":
        result = values.min(axis=-1)
    elif config.pessimism == "mean":
        result = values.mean(axis=-1)
    else:
        result = values.mean(axis=-1) - config.std_weight * values.std(axis=-1)
    return result

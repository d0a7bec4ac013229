"""How far a candidate is from what is committed already, so that a change of mind does not become a jump."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.critic import Critic
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.dimensions import arm_of, judged, refuse_relative, scales
from robopolicy.runtime.reranking.situation import Situation


@dataclass(frozen=True)
class Config:
    """What is compared.

    Args:
        dimensions: names of the action dimensions; all where empty.
        scale: what differences are divided by, one for each of them, in the action spec's units; by default
            1 % of the range of each, by the robot's limits, so that a radian and a metre can be compared.
        executed_only: leave out the steps that are not executed before the policy is asked again.
    """

    dimensions: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    executed_only: bool = False


def build(
    config: Config, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> Consistency:
    """ConfigError where units cannot be compared."""
    return Consistency(config, specs, robot)


class Consistency:
    """A ``Score``: minus the weighted mean squared distance from the committed prefix.

    With a the candidate, y and w the prefix's actions and weights and r the scales:
    -sum_k w_k mean_d ((a_kd - y_kd) / r_d)^2 / sum_k w_k. By default the unit is squared per cent of the
    range: -1 is a candidate that is 1 % off throughout. 0 where nothing is committed.

    A gripper moves through its range far more often than a joint does, and outweighs them where candidates
    differ in it; leave it out by ``dimensions`` where that is not wanted.

    Source: backward coherence of bidirectional decoding (Liu et al. 2024), with the weights of real-time
    chunking (Black et al. 2025, eq. 5) in place of the decay.
    """

    name = "consistency"

    def __init__(self, config: Config, specs: PolicySpecs, robot: Robot | None = None) -> None:
        self._specs = specs
        self._dims = judged(specs.specs.action, config.dimensions)
        refuse_relative(specs.specs.action, self._dims, self.name)
        arm = arm_of(specs.specs, robot)
        self._scale, self.unit = scales(specs.specs.action, self._dims, config.scale, arm, self.name)
        self._steps = specs.horizons.executed if config.executed_only else slice(None)

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """(batch, n); ShapeError, NonFiniteValueError, ConfigError for a prefix that breaks the specs."""
        prefix = situation.context.prefix
        if prefix is None:
            return np.zeros(candidates.shape[:2])
        prefix.check(self._specs, len(candidates))
        committed = prefix.action[:, None, self._steps][..., self._dims].astype(np.float64)
        away = candidates[:, :, self._steps][..., self._dims] - committed
        distance = np.mean((away / self._scale) ** 2, axis=-1)
        weight = prefix.weight[:, None, self._steps].astype(np.float64)
        total = weight.sum(axis=-1)
        summed = np.where(weight > 0, weight * distance, 0.0).sum(axis=-1)
        result: NDArray[np.float64] = 0.0 - summed / np.where(total > 0, total, 1.0)
        return result

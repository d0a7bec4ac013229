"""Past-token self-verification: a candidate whose first actions repeat what was done understood the past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.critic import Critic
from robopolicy.core.errors import ConfigError, ShapeError
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
    """

    dimensions: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()


def build(
    config: Config, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> PastTokens:
    """ConfigError for a policy that predicts no past, or where units cannot be compared."""
    return PastTokens(config, specs, robot)


class PastTokens:
    """A ``Score``: minus the mean squared distance of a candidate's past actions from those executed.

    With a the candidate, e what was done and r the scales, over the steps k < action_start whose e is known
    and the dimensions d: -mean_kd ((a_kd - e_kd) / r_d)^2. By default the unit is squared per cent of the
    range: -1 is a candidate that is 1 % off throughout. Rows of which nothing is known get 0, which changes
    no choice: before the first action, or where nobody has kept the past.

    A gripper moves through its range far more often than a joint does, and outweighs them where candidates
    differ in it; leave it out by ``dimensions`` where that is not wanted.

    It says something of policies that were trained to predict past actions from a long window (the loss here
    covers the whole chunk, the past included); with an observation horizon of 2 it sees one action.

    Source: past-token prediction, PTP (Torne et al. 2025), self-verification at test time.
    """

    name = "past_tokens"

    def __init__(self, config: Config, specs: PolicySpecs, robot: Robot | None = None) -> None:
        horizons, action = specs.horizons, specs.specs.action
        if not horizons.action_start:
            raise ConfigError(
                f"past_tokens needs a policy whose chunks begin in the past: an observation horizon of at "
                f"least 2, got {horizons.observation}"
            )
        self._dims = judged(action, config.dimensions)
        refuse_relative(action, self._dims, self.name)
        self._scale, self.unit = scales(
            action, self._dims, config.scale, arm_of(specs.specs, robot), self.name
        )
        self._shape = (horizons.action_start, action.dim)

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """(batch, n); ShapeError where the past is not (batch, action_start, action_dim)."""
        past = situation.context.past
        if past is None:
            return np.zeros(candidates.shape[:2])
        if past.shape != (len(candidates), *self._shape):
            raise ShapeError(f"past actions must be {(len(candidates), *self._shape)}, got {past.shape}")
        done = past[:, None, :, self._dims].astype(np.float64)
        predicted = candidates[:, :, : self._shape[0], self._dims]
        distance = np.mean(((predicted - done) / self._scale) ** 2, axis=-1)
        known = np.isfinite(done).all(axis=-1)
        total = np.where(known, distance, 0.0).sum(axis=-1)
        result: NDArray[np.float64] = 0.0 - total / np.maximum(known.sum(axis=-1), 1)
        return result

"""Any candidate, with equal chances: the control that tells whether judging them is worth anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.critic import Critic
from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.situation import Situation


@dataclass(frozen=True)
class Config:
    """No options."""


def build(
    config: Config, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> RandomPick:
    return RandomPick()


class RandomPick:
    """A ``Score``: uniform in 0..1."""

    name = "random_pick"
    unit = "1"

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """(batch, n); ConfigError without a generator for each row."""
        if len(situation.rng) != len(candidates):
            raise ConfigError(
                f"random_pick needs a generator for each of {len(candidates)} rows, got {len(situation.rng)}"
            )
        return np.stack([rng.random(candidates.shape[1]) for rng in situation.rng])

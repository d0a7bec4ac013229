"""What a score may look at, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.core.specs import PolicySpecs


@dataclass(frozen=True)
class Situation:
    """Everything known when candidates are judged.

    Args:
        specs: of the policy that drew them.
        observation: each (batch, observation_horizon, *shape), in physical units.
        context: instruction, prefix (what is committed already) and past actions; see ``Context``.
        rng: source of randomness of scores that need one, one for each batch row, so that what becomes of a
            row does not depend on its neighbours; never global.
    """

    specs: PolicySpecs
    observation: Arrays
    rng: Sequence[np.random.Generator]
    context: Context = NO_CONTEXT


class Score(Protocol):
    """Judges candidates; one file each in ``scores``.

    Attributes:
        name: what the command line and the logs call it.
        unit: of its values, so that weights can be chosen.
    """

    name: str
    unit: str

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """One number per candidate, higher is better.

        Args:
            candidates: (batch, n, prediction_horizon, action_dim) in the action spec's units.
        Returns:
            (batch, n); NaN where it cannot judge.
        Raises:
            ShapeError, SpecError, ConfigError: the situation is not what the score was made for; nothing is
                chosen then. Any other exception counts as NaN for all candidates: the policy's first sample
                goes out, and the decision's note names the exception. In a warm-up it passes.
        """
        ...

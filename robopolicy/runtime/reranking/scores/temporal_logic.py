"""How robustly the predicted motion satisfies a formula of signal temporal logic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.critic import Critic
from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import Float32
from robopolicy.core.robot import Robot
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.reranking.logic.formula import is_open, signals_of
from robopolicy.runtime.reranking.logic.parse import parse
from robopolicy.runtime.reranking.logic.robustness import robustness
from robopolicy.runtime.reranking.logic.signals import Signals
from robopolicy.runtime.reranking.situation import Situation


@dataclass(frozen=True)
class Config:
    """What should hold.

    Args:
        formula: see ``logic.parse`` for its grammar and ``logic.signals`` for the signals it may be about.
    """

    formula: str = ""

    def __post_init__(self) -> None:
        if not self.formula.strip():
            raise ConfigError(
                "temporal_logic needs formula='...', for example 'always[0, 0.8] tool.z > 0.05'"
            )


def build(
    config: Config, specs: PolicySpecs, *, robot: Robot | None = None, critic: Critic | None = None
) -> TemporalLogic:
    """ConfigError that shows where the formula is wrong."""
    return TemporalLogic(config, specs, robot)


class TemporalLogic:
    """A ``Score``: by how much the formula holds of the commanded motion, in its predicates' unit.

    Above 0 it holds, below 0 it is violated, and no change of the signals by less than the magnitude changes
    that. Predicates in different units are compared as they stand: write them so that their scales match
    (``10 * gripper < 0.1`` weighs 1 mm of opening as 1 cm of the tool).

    It judges what is commanded, not what the arm will do, and only at policy rate: no proof of safety, and no
    replacement of the safety filter.

    Source: Donzé and Maler 2010; see ``logic.robustness`` for the equations.
    """

    name = "temporal_logic"
    unit = "of its predicates"

    def __init__(self, config: Config, specs: PolicySpecs, robot: Robot | None = None) -> None:
        self._signals = signals = Signals(specs, robot)
        rate = specs.specs.policy_rate
        self._formula = parse(config.formula, signals=signals.names, policy_rate=rate, last=signals.last)
        self._named = signals_of(self._formula)
        self._last = signals.last if is_open(self._formula) else self._formula.horizon

    def __call__(self, candidates: Float32, situation: Situation) -> NDArray[np.float64]:
        """(batch, n)."""
        signals = self._signals.read(self._named, candidates, situation, last=self._last)
        return np.array(np.broadcast_to(robustness(self._formula, signals), candidates.shape[:2]))

"""Scripted expert for ``tasks/two_goal_reach.py``: draws a side, then goes straight there."""

from __future__ import annotations

from typing import Any

import numpy as np

from robopolicy.core.geometry import Float, transform
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.expert import Expert
from robopolicy_sim.motion import ROTATION_DOWN
from robopolicy_sim.tasks.two_goal_reach import SIDES

_OPENING = 0.04  # [m] of the gripper, half closed


class TwoGoalReachExpert(Expert):
    """Goes left or right with equal chance, keyed by the seed of ``reset``, or where the task asks."""

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        super().reset(env, seed)
        asked = getattr(env, "goal", "any")
        drawn = SIDES[int(self.choices.integers(len(SIDES)))]
        self.side = drawn if asked == "any" else asked

    def decide(self, observation: Observation) -> tuple[Float, float]:
        goal = observation[f"{self.side}_goal"].astype(np.float64)
        return transform(ROTATION_DOWN, goal), _OPENING

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "side": self.side}

"""Bring the tool to one of two equally good goals, left and right of a wall, and hold it there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import UnknownNameError
from robopolicy.core.specs import ArraySpec
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.poses import set_mocap, upright

SIDES = ("left", "right")
GOALS = ("any", *SIDES)
GOAL_OFFSET = 0.13  # [m] of each goal from the middle, as in two_goal_reach.xml
TOLERANCE = 0.02  # [m] between tool and goal
#: Where the middle of the two goals may be, (x, y) [m] in the base frame, and its yaw [rad].
PLACEMENT_LOWER = (0.42, -0.12)
PLACEMENT_UPPER = (0.58, 0.12)
YAW_MAX = 0.4
_POSITION = ArraySpec((3,), units=("m",) * 3, names=("x", "y", "z"))
_INSTRUCTIONS = {
    "any": "reach one of the two green goals",
    "left": "reach the left green goal",
    "right": "reach the right green goal",
}


class TwoGoalReachEnv(TaskEnv):
    """Multimodal on purpose: both goals look alike, are equally far from the middle, and either will do.

    Demonstrations go left and right by a choice that no observation shows. Their mean runs into the wall
    that stands in the middle, where nothing counts as success.

    Args:
        goal: "any" accepts both; "left" (the larger y) or "right" accepts that one alone and asks for it in
            the instruction. Nothing else that a policy sees depends on it.
        options: as ``TaskEnv`` takes them.
    Raises:
        UnknownNameError: another goal; lists these.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction = _INSTRUCTIONS["any"]
    episode_seconds: ClassVar[float] = 6.0
    hold_seconds: ClassVar[float] = 0.5

    def __init__(self, *, goal: str = "any", **options: Any) -> None:
        if goal not in GOALS:
            raise UnknownNameError("goal", goal, GOALS)
        self.goal = goal
        self.instruction = _INSTRUCTIONS[goal]
        super().__init__(**options)

        data = self.simulation.data
        # Views, so that a control tick looks nothing up.
        self._goals = {side: data.site(f"goal_{side}").xpos for side in SIDES}
        self._wanted = [self._goals[side] for side in (SIDES if goal == "any" else (goal,))]
        self._tool = data.site(f"{self.robot.name}_tcp").xpos

    def task_specs(self) -> dict[str, ArraySpec]:
        keys = [f"{side}_goal{frame}" for frame in ("", "_in_tool") for side in SIDES]
        return dict.fromkeys(keys, _POSITION)

    def task_observation(self) -> dict[str, NDArray[Any]]:
        tool = self.simulation.transform_tcp_to_base()
        values: dict[str, NDArray[Any]] = {}
        for side, goal in self._goals.items():
            values[f"{side}_goal"] = goal
            values[f"{side}_goal_in_tool"] = (goal - tool[:3, 3]) @ tool[:3, :3]
        return values

    def place(self, rng: np.random.Generator) -> None:
        yaw, middle = rng.uniform(-YAW_MAX, YAW_MAX), rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER)
        set_mocap(self.simulation, "layout", upright((*middle, 0.0), yaw))

    def condition(self) -> bool:
        return self._distance() < TOLERANCE

    def reward(self) -> float:
        """Three quarters for closeness to the nearest goal that counts, a quarter while it is reached."""
        distance = self._distance()
        return 0.75 * (1.0 - math.tanh(3.0 * distance)) + 0.25 * (distance < TOLERANCE)

    def _distance(self) -> float:
        """From the tool to the nearest goal that counts [m]."""
        return min(math.dist(self._tool, goal) for goal in self._wanted)

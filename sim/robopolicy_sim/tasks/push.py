"""Push a block to a pose on the table, without grasping it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import ArraySpec
from robopolicy_sim.environment import TaskEnv
from robopolicy_sim.observing import POSE_SPEC
from robopolicy_sim.poses import (
    body_to_base,
    closeness,
    is_at_rest,
    mocap_pose,
    pose_observations,
    set_mocap,
    turn_within,
    upright,
    yaw_from_quat,
)

BLOCK_SIZE = (0.10, 0.06, 0.04)  # [m] edges, as in push.xml
#: Where the centres of block and target may lie, (x, y) [m] in the base frame.
PLACEMENT_LOWER = (0.44, -0.20)
PLACEMENT_UPPER = (0.62, 0.20)
APART = 0.08  # [m] at least, between the two at the start
TURN = np.pi / 2  # [rad] the target may be turned against the block, either way
POSITION_ERROR = 0.015  # [m]
YAW_ERROR = np.radians(8.0)  # [rad]
_LEVER = 0.09  # [m] of error in the reward per radian, about what a block drifts while it is turned by one
_AROUND = 0.12  # [m] tool within this of the block's centre: near enough, wherever it pushes next


class PushEnv(TaskEnv):
    """Block and target lie anywhere on 18 x 40 cm, at least 8 cm apart and turned by up to 90 degrees.

    The white stripe tells the block's two ends apart, so its yaw has one meaning only. Success: at rest
    within 1.5 cm and 8 degrees of the target for half a second.
    """

    mjcf: ClassVar[Path] = Path(__file__).with_suffix(".xml")
    instruction = "push the purple block onto the green mark"
    episode_seconds: ClassVar[float] = 45.0
    hold_seconds: ClassVar[float] = 0.5

    def task_specs(self) -> dict[str, ArraySpec]:
        names = ("block_pose", "block_pose_in_tool", "target_pose", "target_pose_in_tool")
        return dict.fromkeys(names, POSE_SPEC)

    def task_observation(self) -> dict[str, NDArray[Any]]:
        block, target = (body_to_base(self.simulation, name) for name in ("block", "target"))
        return {
            **pose_observations(self.simulation, "block", block),
            **pose_observations(self.simulation, "target", target),
        }

    def place(self, rng: np.random.Generator) -> None:
        while True:
            block, target = rng.uniform(PLACEMENT_LOWER, PLACEMENT_UPPER, size=(2, 2))
            if np.linalg.norm(block - target) >= APART:
                break
        yaw, turn = rng.uniform(-np.pi, np.pi), rng.uniform(-TURN, TURN)
        self.simulation.data.joint("block").qpos[:] = upright((*block, BLOCK_SIZE[2] / 2), yaw)
        set_mocap(self.simulation, "target", upright((*target, 0.0), yaw + turn))

    def condition(self) -> bool:
        distance, turn = self._errors()
        return distance < POSITION_ERROR and turn < YAW_ERROR and is_at_rest(self.simulation, "block")

    def reward(self) -> float:
        """A tenth for closeness of the tool to the block, the rest for closeness of the block to its goal."""
        if self.condition():
            return 1.0
        tool = self.simulation.transform_tcp_to_base()[:3, 3]
        reached = closeness(max(float(np.linalg.norm(tool - self._block_position())) - _AROUND, 0.0), 0.2)
        distance, turn = self._errors()
        return 0.1 * reached + 0.9 * closeness(distance + _LEVER * turn, 0.25)

    def _block_position(self) -> NDArray[np.float64]:
        position: NDArray[np.float64] = self.simulation.data.joint("block").qpos[:3]
        return position

    def _errors(self) -> tuple[float, float]:
        """Distance on the table [m] and angle between the yaws [rad] of block and target."""
        block, target = self.simulation.data.joint("block").qpos, mocap_pose(self.simulation, "target")
        x, y = (block[:2] - target[:2]).tolist()
        turn = turn_within(yaw_from_quat(block[3:]) - yaw_from_quat(target[3:]), 2 * np.pi)
        return math.hypot(x, y), abs(turn)

"""Scripted expert for ``tasks/place.py``: pick, carry over the bin, let go, retreat. No phase is stored."""

from __future__ import annotations

import numpy as np

from robopolicy.core.geometry import Float, transform, transform_from_pose_9d
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.expert import Expert
from robopolicy_sim.grasping import Picker, carry, retreat, rotation_down, square_yaw
from robopolicy_sim.tasks.place import BIN_INSIDE, BIN_RIM, CUBE_SIZE

_RELEASE = BIN_RIM + 0.02  # [m] tool height: the cube dips into the bin, the fingertips stay above the rim
_RELEASED = 0.008  # [m] above and beside that place, where the fingers open
_OVER = 0.03  # [m] kept from the walls


class PlaceExpert(Expert):
    """What comes next follows from where the cube is: in the bin -> away from it; held -> to the bin;
    anywhere else -> pick it. Over the bin's centre the fingers open."""

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        super().reset(env, seed)
        self._picker = Picker(CUBE_SIZE, env.robot.gripper.opening_max)

    def decide(self, observation: Observation) -> tuple[Float, float]:
        tool, cube, target = (
            transform_from_pose_9d(observation[name].astype(np.float64))
            for name in ("ee_pose", "cube_pose", "bin_pose")
        )
        in_bin = target[:3, :3].T @ (cube[:3, 3] - target[:3, 3])
        if np.abs(in_bin[:2]).max() < BIN_INSIDE / 2 and in_bin[2] < BIN_RIM:
            return retreat(tool), self._picker.opening
        if not self._picker.holds(tool, cube, observation):
            if np.abs(in_bin[:2]).max() < BIN_INSIDE / 2 - _OVER:  # falling, just let go
                return retreat(tool), self._picker.opening
            return self._picker.approach(tool, cube)
        goal = transform(rotation_down(square_yaw(target)), (*target[:2, 3], _RELEASE))
        if np.linalg.norm(goal[:3, 3] - tool[:3, 3]) < _RELEASED:
            return goal, self._picker.opening
        return carry(tool, goal), self._picker.closed

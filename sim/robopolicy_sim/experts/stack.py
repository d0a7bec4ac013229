"""Scripted expert for ``tasks/stack.py``: pick red, set it down on green, let go. No phase is stored."""

from __future__ import annotations

import numpy as np

from robopolicy.core.geometry import Float, transform, transform_from_pose_9d
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.expert import Expert
from robopolicy_sim.grasping import Picker, carry, retreat, rotation_down, square_yaw
from robopolicy_sim.tasks.stack import GREEN_SIZE, RED_SIZE

_ON_TOP = (RED_SIZE + GREEN_SIZE) / 2  # [m] between the centres
_SET_DOWN = 0.003  # [m] height error at which the fingers may open
_CENTRED = 0.006  # [m] sideways error at which they may
_STACKED = 0.02  # [m] sideways error of a stack that stands


class StackExpert(Expert):
    """What comes next follows from where the red cube is: on green -> away from it; held -> onto green;
    anywhere else -> pick it. The fingers open once it is centred and touches down."""

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        super().reset(env, seed)
        self._picker = Picker(RED_SIZE, env.robot.gripper.opening_max)

    def decide(self, observation: Observation) -> tuple[Float, float]:
        tool, red, green = (
            transform_from_pose_9d(observation[name].astype(np.float64))
            for name in ("ee_pose", "red_cube_pose", "green_cube_pose")
        )
        place = green[:3, 3] + [0.0, 0.0, _ON_TOP]
        error = red[:3, 3] - place
        sideways, height = float(np.linalg.norm(error[:2])), float(error[2])
        held = self._picker.holds(tool, red, observation)
        if height < _SET_DOWN and sideways < (_CENTRED if held else _STACKED) and height > -_SET_DOWN:
            return (transform(tool[:3, :3], tool[:3, 3]) if held else retreat(tool)), self._picker.opening
        if not held:
            return self._picker.approach(tool, red)
        # The cube hangs in the fingers with an offset of some millimetres: lead the cube, not the tool.
        goal = transform(rotation_down(square_yaw(green)), place + tool[:3, 3] - red[:3, 3])
        return carry(tool, goal), self._picker.closed

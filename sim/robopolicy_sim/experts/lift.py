"""Scripted expert for ``tasks/lift.py``: hover, descend, close, lift. No phase is stored."""

from __future__ import annotations

import numpy as np

from robopolicy.core.geometry import Float, transform, transform_from_pose_9d
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.expert import Expert
from robopolicy_sim.motion import ROTATION_DOWN, rotation_from_vector
from robopolicy_sim.tasks.lift import quarter_turn

_HOVER = 0.09  # [m] tool above the cube's centre before the descent
_LIFT = 0.14  # [m] tool height while the cube is held up, above the table
_ALIGNED = 0.025  # [m] sideways error that lets the descent begin
_ALIGNED_YAW = 0.2  # [rad]
_NEAR = 0.012  # [m] between tool and cube centre: the fingers are around it
_GRASPED = 0.043  # [m] opening below which the fingers touch the 4 cm cube
_CLOSED = 0.025  # [m] commanded opening; 15 mm inside the cube press with about 22 N


class LiftExpert(Expert):
    """Grasps with the fingers along the cube's sides nearest to the neutral wrist, then lifts straight up.

    What comes next follows from distances and the measured opening: fingers around the cube -> close;
    touching it -> up; above it -> down; otherwise -> above. A dropped cube is therefore picked up again.
    """

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        super().reset(env, seed)
        self._open = env.robot.gripper.opening_max

    def decide(self, observation: Observation) -> tuple[Float, float]:
        tool = transform_from_pose_9d(observation["ee_pose"].astype(np.float64))
        cube = transform_from_pose_9d(observation["cube_pose"].astype(np.float64))
        offset = cube[:3, 3] - tool[:3, 3]
        rotation = ROTATION_DOWN @ rotation_from_vector(np.array([0.0, 0.0, -_grasp_yaw(cube)]))
        down = cube[:3, 3]
        if np.linalg.norm(offset) < _NEAR:
            if observation["gripper_opening"][0] < _GRASPED:
                up = np.array([*tool[:2, 3], _LIFT])
                return transform(tool[:3, :3], up), _CLOSED
            return transform(rotation, down), _CLOSED
        sideways = float(np.linalg.norm(offset[:2]))
        turn = rotation.T @ tool[:3, :3]
        yaw_error = abs(float(np.arctan2(turn[1, 0], turn[0, 0])))
        if sideways < _ALIGNED and yaw_error < _ALIGNED_YAW:
            return transform(rotation, down), self._open
        return transform(rotation, down + np.array([0.0, 0.0, _HOVER])), self._open


def _grasp_yaw(cube: Float) -> float:
    """Yaw that lines the fingers up with a side of the cube, nearest to the arm's own direction [rad]."""
    side = cube[:3, :3][:, int(np.argmin(np.abs(cube[2, :3])))]  # a side's normal, most nearly horizontal
    azimuth = float(np.arctan2(cube[1, 3], cube[0, 3]))
    return azimuth + quarter_turn(float(np.arctan2(side[1], side[0])) - azimuth)

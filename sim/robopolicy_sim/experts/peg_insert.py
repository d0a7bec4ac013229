"""Scripted expert for ``tasks/peg_insert.py``: grasp, carry, lower, let go. No phase is stored."""

from __future__ import annotations

import numpy as np

from robopolicy.core.geometry import Float, transform, transform_from_pose_9d
from robopolicy_sim.environment import Observation, TaskEnv
from robopolicy_sim.expert import Expert
from robopolicy_sim.grasping import over_then_down, rotation_down, square_yaw, tool_yaw
from robopolicy_sim.poses import turn_within
from robopolicy_sim.tasks.peg_insert import DEPTH, PEG_LENGTH, PEG_SIZE

_GRASP = 0.02  # [m] above the peg's middle: fingertips stay clear of the block
_NEAR = 0.012  # [m] between tool and grasp: the fingers are around the peg
_TOUCHED = PEG_SIZE + 0.003  # [m] opening below which they touch it
_CLOSED = PEG_SIZE - 0.015  # [m] commanded opening while it is held
_CLEAR = 0.012  # [m] of the peg's end above the block's top while it is carried
_OVER = 0.03  # [m] sideways error below which the end may be that close to the block
_ENTERS = 0.005  # [m] sideways error that the bevel takes up
_ENTERS_YAW = 0.08  # [rad]
_RELEASE = DEPTH + 0.004  # [m] depth at which the fingers open
_FURTHER = 0.01  # [m] below that the tool heads for, so as not to slow down before


class PegInsertExpert(Expert):
    """Leads the peg's end, not the tool: the peg hangs in the fingers with an offset of some millimetres.

    What comes next follows from where the peg is: deep in the hole -> let go; held and over the hole -> down;
    held -> over the hole; anywhere else -> grasp it.
    """

    def reset(self, env: TaskEnv, seed: int = 0) -> None:
        super().reset(env, seed)
        self._open = env.robot.gripper.opening_max

    def decide(self, observation: Observation) -> tuple[Float, float]:
        tool, peg, hole = (
            transform_from_pose_9d(observation[name].astype(np.float64))
            for name in ("ee_pose", "peg_pose", "hole_pose")
        )
        end = peg[:3, 3] - PEG_LENGTH / 2 * peg[:3, 2]
        grasp = peg[:3, 3] + _GRASP * peg[:3, 2]
        sideways, depth = float(np.linalg.norm(end[:2] - hole[:2, 3])), float(hole[2, 3] - end[2])
        if depth > _RELEASE and sideways < PEG_SIZE / 2:
            return tool, self._open
        if np.linalg.norm(grasp - tool[:3, 3]) > _NEAR:
            return over_then_down(tool, grasp, square_yaw(peg)), self._open
        if observation["gripper_opening"][0] > _TOUCHED:
            return transform(rotation_down(square_yaw(peg)), grasp), _CLOSED
        return self._insert(tool, peg, hole, end), _CLOSED

    def _insert(self, tool: Float, peg: Float, hole: Float, end: Float) -> Float:
        """(4, 4) tool pose that leads the peg's ``end`` over the hole, then into it."""
        offset = hole[:3, 3] - end
        above = -float(offset[2])
        turn = turn_within(square_yaw(hole) - square_yaw(peg), np.pi / 2)
        sideways = float(np.linalg.norm(offset[:2]))
        inside = above < 0.0 and sideways < PEG_SIZE / 2
        if inside or (sideways < _ENTERS and abs(turn) < _ENTERS_YAW):
            offset[2] -= _RELEASE + _FURTHER
        elif sideways < _OVER:
            offset[2] += _CLEAR
        else:
            offset[2] += 3 * _CLEAR
            if above < _CLEAR:  # first up
                offset[:2] = 0.0
        return transform(rotation_down(tool_yaw(tool[:3, :3]) + turn), tool[:3, 3] + offset)

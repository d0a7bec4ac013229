"""Inverse kinematics of one arm by mink: differential steps, repeated to convergence.

A seven-joint arm can reach a pose with its elbow anywhere on a circle. Here one joint, ``redundant_joint``,
is drawn to its home angle (on the FR3: joint 3 to zero, elbow in the vertical plane through the wrist), so
the joints found depend smoothly on the pose, not on the path there. That keeps demonstrations a function of
what a policy can see. Drawing all joints home instead makes the elbow snap: 13 rad/s^2 in the lift expert,
against 5.
"""

from __future__ import annotations

from typing import Any

import mink
import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy_sim import robots

_REDUNDANT_COST = 1e-2  # of the redundant joint, against 1 per metre and per radian of the tool
_POSTURE_COST = 1e-4  # of the others, so that the problem stays well-posed everywhere
_STEP_MAX = 0.4  # [rad] largest joint step of one iteration, where linearisation still holds
_TOLERANCE = 1e-5  # [rad] an iteration that moves every joint by less ends the search
_MARGIN = 1e-3  # [rad] kept from the joint limits


class InverseKinematics:
    """Joint positions that bring a robot's tool to a pose.

    Args:
        robot: its MJCF needs a site NAME_tcp and joints named as in the robot file.
        redundant_joint: index of the joint that settles at its home angle.
    """

    def __init__(self, robot: Robot, redundant_joint: int = 2) -> None:
        model = mujoco.MjModel.from_xml_path(str(robots.mjcf_path(robot.name)))
        model.eq_active0[:] = False  # the fingers' coupling is of no interest here
        self._size = len(robot.joints)
        assert tuple(model.joint(i).name for i in range(self._size)) == robot.joint_names
        limits = robot.limits
        self._lower = limits.lower[: self._size] + _MARGIN
        self._upper = limits.upper[: self._size] - _MARGIN
        self._configuration = mink.Configuration(model)
        self._tool = mink.FrameTask(f"{robot.name}_tcp", "site", position_cost=1.0, orientation_cost=1.0)
        cost = np.full(model.nv, _POSTURE_COST)
        cost[redundant_joint] = _REDUNDANT_COST
        self._posture = mink.PostureTask(model, cost=cost)
        self._posture.set_target(self._full(np.asarray(robot.home)))
        names = [model.joint(i).name for i in range(model.njnt)]
        self._limits = [
            mink.ConfigurationLimit(model, gain=1.0),
            mink.VelocityLimit(model, dict.fromkeys(names, _STEP_MAX)),
        ]

    def _full(self, arm: NDArray[Any]) -> Float:
        q = np.zeros(self._configuration.nq)
        q[: self._size] = arm
        return q

    def solve(self, transform_tcp_to_base: NDArray[Any], start: NDArray[Any], iterations: int = 30) -> Float:
        """The nearest posture that reaches the pose, or the best one within limits when none does.

        Args:
            transform_tcp_to_base: (4, 4) pose wanted.
            start: (num_joints,) where the search starts [rad].
            iterations: upper bound; some 5 do from one waypoint to the next, 0.15 ms each.
        Returns:
            (num_joints,) joint positions within the limits [rad].
        """
        self._tool.set_target(mink.SE3.from_matrix(np.asarray(transform_tcp_to_base, dtype=np.float64)))
        self._configuration.update(self._full(np.clip(start, self._lower, self._upper)))
        for _ in range(iterations):
            velocity = mink.solve_ik(
                self._configuration, [self._tool, self._posture], 1.0, "daqp", 1e-9, limits=self._limits
            )
            self._configuration.integrate_inplace(velocity, 1.0)
            if np.abs(velocity).max() < _TOLERANCE:
                break
        return np.clip(self._configuration.q[: self._size], self._lower, self._upper)

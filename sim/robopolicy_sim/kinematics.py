"""Inverse kinematics of one arm by mink: differential steps, repeated to convergence.

A seven-joint arm can reach a pose with its elbow anywhere on a circle. Here one joint, the robot's
``redundant_joint``, is drawn to its home angle (on the FR3: joint 3 to zero, elbow in the vertical plane
through the wrist), so the joints found depend smoothly on the pose, not on the path there. That keeps
demonstrations a function of what a policy can see. Drawing all joints home instead makes the elbow snap:
13 rad/s^2 in the lift expert, against 5.

Arms of six joints have no such freedom: up to the branch the search starts in, the pose decides. Arms of
fewer cannot hold every orientation; theirs is given up for the position's sake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mink
import mujoco
import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float, matrix_from_rpy, quat_wxyz_from_matrix
from robopolicy.core.robot import Robot

if TYPE_CHECKING:
    from robopolicy_sim.robots import SimulatedRobot

_REDUNDANT_COST = 1e-2  # of the redundant joint, against 1 per metre and per radian of the tool
_POSTURE_COST = 1e-4  # of the others, so that the problem stays well-posed everywhere
_ORIENTATION_COST_SHORT = 0.02  # per radian, of arms with fewer than six joints
_STEP_MAX = 0.4  # [rad] largest joint step of one iteration, where linearisation still holds
_LEG = (0.1, 0.5)  # [m], [rad] a farther pose is approached in legs of at most this, along a screw
_TOLERANCE = 1e-5  # [rad] an iteration that moves every joint by less ends the search
_MARGIN = 1e-3  # [rad] kept from the joint limits


def chain_model(robot: Robot) -> mujoco.MjModel:
    """The arm's joints and tool alone, from the numbers of its robot file; bodies weigh a token 1 kg."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    body = spec.worldbody
    for joint in robot.joints:
        quat_wxyz = quat_wxyz_from_matrix(matrix_from_rpy(joint.origin_rpy))
        body = body.add_body(pos=joint.origin_xyz, quat=quat_wxyz)
        body.mass, body.inertia, body.explicitinertial = 1.0, [0.1] * 3, True
        body.add_joint(name=joint.name, axis=[0, 0, 1], range=[joint.lower, joint.upper], limited=True)
    quat_wxyz = quat_wxyz_from_matrix(matrix_from_rpy(robot.flange_to_tcp_rpy))
    body.add_site(name="tcp", pos=robot.flange_to_tcp_xyz, quat=quat_wxyz)
    return spec.compile()


class InverseKinematics:
    """Joint positions that bring a robot's tool to a pose.

    Args:
        arm: the robot; its home says where redundant joints settle.
    """

    def __init__(self, arm: SimulatedRobot) -> None:
        robot = arm.robot
        model = chain_model(robot)
        limits = robot.limits
        self._lower = limits.lower[:-1] + _MARGIN
        self._upper = limits.upper[:-1] - _MARGIN
        self._configuration = mink.Configuration(model)
        orientation_cost = 1.0 if len(robot.joints) >= 6 else _ORIENTATION_COST_SHORT
        self._tool = mink.FrameTask("tcp", "site", position_cost=1.0, orientation_cost=orientation_cost)
        redundant = np.array([name == robot.redundant_joint for name in robot.joint_names])
        cost = np.where(redundant, _REDUNDANT_COST, _POSTURE_COST)
        self._posture = mink.PostureTask(model, cost=cost)
        self._posture.set_target(np.asarray(robot.home))
        self._limits = [
            mink.ConfigurationLimit(model, gain=1.0),
            mink.VelocityLimit(model, dict.fromkeys(robot.joint_names, _STEP_MAX)),
        ]

    def solve(self, transform_tcp_to_base: NDArray[Any], start: NDArray[Any], iterations: int = 30) -> Float:
        """The nearest posture that reaches the pose, or the best one within limits when none does.

        Args:
            transform_tcp_to_base: (4, 4) pose wanted.
            start: (num_joints,) where the search starts [rad].
            iterations: upper bound at the pose itself; some 5 do from one waypoint to the next, 0.15 ms each.
        Returns:
            (num_joints,) joint positions within the limits [rad].
        """
        self._configuration.update(np.clip(start, self._lower, self._upper))
        goal = mink.SE3.from_matrix(np.asarray(transform_tcp_to_base, dtype=np.float64))
        legs = self._legs(goal)
        for k in range(len(legs) + iterations):
            self._tool.set_target(legs[k] if k < len(legs) else goal)
            velocity = mink.solve_ik(
                self._configuration, [self._tool, self._posture], 1.0, "daqp", 1e-9, limits=self._limits
            )
            self._configuration.integrate_inplace(velocity, 1.0)
            if k >= len(legs) and np.abs(velocity).max() < _TOLERANCE:
                break
        joints: Float = np.clip(self._configuration.q, self._lower, self._upper)
        return joints

    def _legs(self, goal: mink.SE3) -> list[mink.SE3]:
        """Poses on the way to a far one: from far off, Newton steps end in the wrong valley."""
        here = self._configuration.get_transform_frame_to_world("tcp", "site")
        way = goal.minus(here)
        count = int(max(np.linalg.norm(way[:3]) / _LEG[0], np.linalg.norm(way[3:]) / _LEG[1]))
        return [here.interpolate(goal, (i + 1) / (count + 1)) for i in range(count)]

"""Action spaces: what an action of each space means, as joint targets, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import NonFiniteValueError, UnknownNameError
from robopolicy.core.geometry import (
    Float,
    matrix_from_rotation_6d,
    pose_9d_from_transform,
    transform,
    transform_from_pose_9d,
)
from robopolicy.core.robot import Robot
from robopolicy.core.specs import ActionPart, ActionSpec
from robopolicy_sim.kinematics import InverseKinematics
from robopolicy_sim.robots import SimulatedRobot

ARM_SPACES = ("joint_position", "joint_delta", "ee_pose", "ee_delta")
POSE_NAMES = ("x", "y", "z", "r0", "r1", "r2", "r3", "r4", "r5")
_DELTA_MAX = 0.1  # [m] widest translation one ee_delta action may ask for


def action_spec(robot: Robot, space: str) -> ActionSpec:
    """Spec of one arm space plus the gripper opening; UnknownNameError lists the spaces."""
    if space not in ARM_SPACES:
        raise UnknownNameError("action space", space, ARM_SPACES)
    names = robot.joint_names if space.startswith("joint") else POSE_NAMES
    reference = "relative" if space.endswith("delta") else "absolute"
    frame = "" if space.startswith("joint") else robot.base_frame
    gripper = ActionPart("gripper_opening", (robot.gripper.name,))
    return ActionSpec((ActionPart(space, names, reference, frame), gripper))


def action_bounds(robot: Robot, space: str, policy_rate: float) -> tuple[Float, Float]:
    """Lower and upper bound of each action dimension: (action_dim,) each, in the spec's units."""
    limits = robot.limits
    size = len(robot.joints)
    if space == "joint_position":
        return limits.lower, limits.upper
    if space == "joint_delta":
        arm_upper = limits.velocity[:size] / policy_rate
        arm_lower = -arm_upper
    elif space == "ee_pose":
        arm_lower = np.concatenate([robot.workspace_lower, -np.ones(6)])
        arm_upper = np.concatenate([robot.workspace_upper, np.ones(6)])
    else:
        arm_upper = np.concatenate([np.full(3, _DELTA_MAX), np.ones(6)])
        arm_lower = -arm_upper
    return np.append(arm_lower, limits.lower[-1]), np.append(arm_upper, limits.upper[-1])


class ActionConverter:
    """Joint and gripper targets from actions of one space. Stateless: the previous command comes in.

    Relative actions count from the previous COMMAND, not the measured state, so servo lag does not
    accumulate. ``ee_delta`` moves along the base frame's axes and rotates about them:
    position' = position + delta, rotation' = delta @ rotation.

    A tool pose is approached no faster than the joints may turn. Beside a singularity (of the UR5e: above its
    base) a small motion of the tool asks for half a turn of a joint, and a pose out of reach for a jump.

    Args:
        policy_rate: actions per second [Hz].
    """

    def __init__(self, arm: SimulatedRobot, space: str, policy_rate: float = 10.0) -> None:
        self.spec = action_spec(arm.robot, space)
        self.space = space
        self._robot = arm.robot
        self._limits = arm.robot.limits
        self._step_max = arm.robot.limits.velocity[:-1] / policy_rate
        self._kinematics = InverseKinematics(arm) if space.startswith("ee") else None

    def command_from_action(self, action: NDArray[Any], previous: Float) -> Float:
        """What the servos shall reach.

        Args:
            action: (action_dim,) finite, in the spec's units.
            previous: (num_joints + 1,) the command before: joints [rad], gripper opening [m].
        Returns:
            (num_joints + 1,) joints [rad] and gripper opening [m], clipped to the robot's position limits.
        Raises:
            NonFiniteValueError: a 6-D rotation whose two columns are parallel or zero.
        """
        arm, limits = action[:-1], self._limits
        if self.space == "joint_position":
            joints = arm
        elif self.space == "joint_delta":
            joints = previous[:-1] + arm
        else:
            joints = self._solve(arm, previous[:-1])
        command: Float = np.clip(np.append(joints, action[-1]), limits.lower, limits.upper)
        return command

    def action_from_command(self, command: NDArray[Any], previous: Float) -> Float:
        """The action of this space that leads from ``previous`` to ``command``; the inverse of the above."""
        if self.space == "joint_position":
            arm = command[:-1]
        elif self.space == "joint_delta":
            arm = command[:-1] - previous[:-1]
        else:
            pose = self._robot.transform_tcp_to_base(np.asarray(command[:-1]))
            if self.space == "ee_delta":
                before = self._robot.transform_tcp_to_base(previous[:-1])
                pose = transform(pose[:3, :3] @ before[:3, :3].T, pose[:3, 3] - before[:3, 3])
            arm = pose_9d_from_transform(pose)
        return np.append(arm, command[-1])

    def _solve(self, pose_9d: NDArray[Any], start: Float) -> Float:
        assert self._kinematics is not None
        with np.errstate(invalid="ignore", divide="ignore"):
            rotation = matrix_from_rotation_6d(pose_9d[3:])
        if not np.isfinite(rotation).all():
            raise NonFiniteValueError(f"columns of the 6-D rotation are parallel or zero: {pose_9d[3:]}")
        target = transform_from_pose_9d(pose_9d)
        if self.space == "ee_delta":
            before = self._robot.transform_tcp_to_base(start)
            target = transform(rotation @ before[:3, :3], before[:3, 3] + pose_9d[:3])
        step = self._kinematics.solve(target, start) - start
        joints: Float = start + step / np.maximum(1.0, np.max(np.abs(step) / self._step_max))
        return joints

"""What a robot file states: joints, limits with their source, kinematics, gripper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ShapeError, SpecError
from robopolicy.core.geometry import Float, matrix_from_rpy, transform


@dataclass(frozen=True)
class Joint:
    """One revolute joint, rotating about its own z axis.

    Args:
        name: as in the driver's joint_states.
        origin_xyz: [m] and origin_rpy [rad]: the joint frame in the parent's, URDF convention.
        lower, upper: position limits [rad].
        velocity [rad/s], acceleration [rad/s^2], jerk [rad/s^3], effort [N m]: absolute limits.
    """

    name: str
    origin_xyz: tuple[float, float, float]
    origin_rpy: tuple[float, float, float]
    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float
    effort: float

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise SpecError(f"{self.name}: lower {self.lower} is not below upper {self.upper} [rad]")
        if min(self.velocity, self.acceleration, self.jerk, self.effort) <= 0:
            raise SpecError(f"{self.name}: limits must be positive")


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper commanded by its opening, the distance between the fingertips.

    Args:
        name: of the commanded dimension.
        opening_max: fully open [m]; closed is 0.
        velocity [m/s], acceleration [m/s^2], jerk [m/s^3]: limits of the opening.
        force: continuous grasping force [N].
    """

    name: str
    opening_max: float
    velocity: float
    acceleration: float
    jerk: float
    force: float


@dataclass(frozen=True)
class Capsule:
    """All points within ``radius`` of a segment; together they cover a robot's body.

    Args:
        part: name of the body part it belongs to; several capsules may share one.
        joint: name of the joint whose frame it is fixed to; empty for the base frame.
        start, end: (3,) of the segment in that frame [m]; equal for a sphere.
        radius: [m].
        tool: whether it belongs to the fingers, which may come closer to the table than the rest.
    """

    part: str
    joint: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float
    tool: bool = False

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise SpecError(f"a capsule of {self.part} has the radius {self.radius} [m]")


@dataclass(frozen=True)
class Limits:
    """Limits per command dimension, arm joints then gripper; arrays of shape (dim,)."""

    lower: Float
    upper: Float
    velocity: Float
    acceleration: Float
    jerk: Float


@dataclass(frozen=True)
class Robot:
    """A serial arm with a gripper. One file in ``robopolicy.robots`` defines one of these as ROBOT.

    Args:
        joints: base to flange.
        flange_to_tcp_xyz [m], flange_to_tcp_rpy [rad]: the tool centre point in the last joint's frame.
        home: (num_joints,) rest posture [rad].
        workspace_lower, workspace_upper: (3,) box for the tool centre point in the base frame [m].
        source: where the numbers come from.
        base_frame: name of the frame that poses are given in, as the driver's transforms call it.
        redundant_joint: name of the joint whose angle the tool's pose leaves open; empty where there is none.
        capsules: cover the arm and its gripper at every opening; empty where the body is not known.
        touching: pairs of parts that are not checked against each other, because their capsules overlap
            where they are joined, in every posture or in harmless ones.
    Raises:
        SpecError: home has another number of joints; the redundant joint, a capsule's joint or a touching
            part is unknown.
    """

    name: str
    joints: tuple[Joint, ...]
    gripper: Gripper
    flange_to_tcp_xyz: tuple[float, float, float]
    flange_to_tcp_rpy: tuple[float, float, float]
    home: tuple[float, ...]
    workspace_lower: tuple[float, float, float]
    workspace_upper: tuple[float, float, float]
    source: str
    base_frame: str
    redundant_joint: str = ""
    capsules: tuple[Capsule, ...] = ()
    touching: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len(self.home) != len(self.joints):
            raise SpecError(f"{self.name} has {len(self.joints)} joints, its home {len(self.home)} angles")
        if self.redundant_joint not in ("", *self.joint_names):
            raise SpecError(f"redundant joint {self.redundant_joint!r} is none of {self.joint_names}")
        parts = {capsule.part for capsule in self.capsules}
        unknown = {capsule.joint for capsule in self.capsules} - {"", *self.joint_names}
        unknown |= {part for pair in self.touching for part in pair} - parts
        if unknown:
            raise SpecError(
                f"{self.name}: capsules or touching pairs name {sorted(unknown)}; the joints are "
                f"{self.joint_names}, the parts {sorted(parts)}"
            )

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Indices of the capsules that must keep apart: of different parts that are not ``touching``."""
        joined = {frozenset(pair) for pair in self.touching}
        parts = [capsule.part for capsule in self.capsules]
        return tuple(
            (i, j)
            for j in range(len(parts))
            for i in range(j)
            if parts[i] != parts[j] and frozenset((parts[i], parts[j])) not in joined
        )

    @property
    def limits(self) -> Limits:
        """Arm joints, then the gripper opening."""
        parts: tuple[Joint | Gripper, ...] = (*self.joints, self.gripper)
        return Limits(
            lower=np.array([*(j.lower for j in self.joints), 0.0]),
            upper=np.array([*(j.upper for j in self.joints), self.gripper.opening_max]),
            velocity=np.array([p.velocity for p in parts]),
            acceleration=np.array([p.acceleration for p in parts]),
            jerk=np.array([p.jerk for p in parts]),
        )

    def transform_tcp_to_base(self, joint_position: NDArray[Any]) -> Float:
        """Forward kinematics: (num_joints,) [rad] -> (4, 4) pose of the tool in the base frame."""
        if joint_position.shape != (len(self.joints),):
            raise ShapeError(f"{self.name} has {len(self.joints)} joints, got {joint_position.shape}")
        pose = np.eye(4)
        for joint, angle in zip(self.joints, joint_position):
            pose = pose @ transform(matrix_from_rpy(joint.origin_rpy), joint.origin_xyz)
            pose = pose @ transform(matrix_from_rpy((0.0, 0.0, float(angle))), (0.0, 0.0, 0.0))
        tool: Float = pose @ transform(matrix_from_rpy(self.flange_to_tcp_rpy), self.flange_to_tcp_xyz)
        return tool

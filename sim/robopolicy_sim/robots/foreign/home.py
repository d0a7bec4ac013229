"""A rest posture for an arm whose model names none: the tool over the table, pointing down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle, product

import numpy as np

from robopolicy.core.errors import SpecError
from robopolicy.core.geometry import Float, matrix_from_rpy, transform
from robopolicy.core.robot import Robot
from robopolicy_sim.kinematics import InverseKinematics
from robopolicy_sim.motion import ROTATION_DOWN
from robopolicy_sim.robots import SimulatedRobot
from robopolicy_sim.robots.foreign.chain import Chain
from robopolicy_sim.robots.foreign.reading import ModelFile

_PLACE = (0.45, 0.3)  # [m] in front of the base, above the table, for an arm that reaches so far
_SHARE = (0.55, 0.4)  # of the workspace's depth and height, for a smaller one
_NEARER, _LOWER = (1.0, 0.7), (1.0, 0.5, 0.2)  # of that place, tried one after the other
_STARTS, _ITERATIONS = 24, 20  # postures the search starts from, and what each may take
_TURNS = [matrix_from_rpy((0.0, 0.0, k * np.pi / 2)) for k in range(4)]  # of the tool about its axis
_CLOSE = 2e-3  # [m]
_TILT, _TILT_SHORT = 0.05, 0.5  # [rad] of the tool's axis; fewer than six joints cannot choose it
_POINTS_DOWN = -np.cos(np.pi / 6)  # of a keyframe's tool, its axis' z
_STRAIGHTER, _ROOMIER = 0.05, 0.3  # [m/rad] of height that smaller angles, and room to the limits, are worth
_ROOM = 1.0  # [rad] of room to a limit that is enough


def with_home(robot: Robot, file: ModelFile, chain: Chain, *, freely: bool) -> Robot:
    """The robot with the YAML's rest posture, the keyframe ``home``'s, or one that is found.

    A keyframe counts if its tool points down within the workspace. Of the postures found, the one with the
    highest joints counts that keeps clear of its limits.

    Args:
        freely: the tool's x axis need not point away from the base; see ``turn_forward``.
    Raises:
        ModelError: the YAML's posture does not fit, or none is found; says how to give one.
    """
    if file.options.home:
        return _given(robot, file)
    model = file.model
    for key in range(model.nkey):
        angles = np.array(model.key_qpos[key][model.jnt_qposadr[list(chain.joints)]])
        if model.key(key).name == "home" and _is_over_the_table(robot, angles):
            return _settled(robot, angles, "from its keyframe")
    kinematics = InverseKinematics(SimulatedRobot(robot, file.path))
    for near, low in product(_NEARER, _LOWER):
        joints = _search(robot, kinematics, near, low, freely=freely)
        if joints is not None:
            return _settled(robot, joints, "by inverse kinematics")
    zeros = ", ".join(["0.0"] * len(robot.joints))
    raise file.error(
        f"no posture found with the tool pointing down before the base; z of the tool must point out of the "
        f"gripper, and the arm along x. Give a posture in {file.yaml}: 'home: [{zeros}]' [rad], or turn the "
        f"arm: 'mount_rpy: [0, 0, 1.5708]'"
    )


def turn_forward(robot: Robot, *, freely: bool) -> Float:
    """(3, 3) turn of the tool about its z axis that brings its x axis, at home, away from the base.

    Experts take a tool whose x axis points that way for neutral, and turn it less than half a turn.

    Args:
        freely: by any angle, as when we screw a gripper on; else by half a turn or none, which swaps fingers.
    """
    pose = robot.transform_tcp_to_base(np.asarray(robot.home))
    if pose[2, 2] > -0.5:  # it does not point down, so no direction is away
        return np.eye(3)
    away = np.arctan2(pose[1, 3], pose[0, 3])
    local = pose[:3, :3].T @ np.array([np.cos(away), np.sin(away), 0.0])
    angle = float(np.arctan2(local[1], local[0]))
    if not freely:
        angle = np.pi if abs(angle) > np.pi / 2 else 0.0
    return matrix_from_rpy((0.0, 0.0, angle))


def _given(robot: Robot, file: ModelFile) -> Robot:
    try:
        robot = replace(robot, home=file.options.home)
    except SpecError as error:
        raise file.error(f"{file.yaml}: {error}") from error
    for joint, angle in zip(robot.joints, robot.home):
        if not joint.lower < angle < joint.upper:
            raise file.error(
                f"{file.yaml}: home of {joint.name} is {angle}, not in {joint.lower:g}..{joint.upper:g} rad"
            )
    return robot


def _settled(robot: Robot, joints: Float, how: str) -> Robot:
    return replace(robot, home=tuple(float(a) for a in joints), source=f"{robot.source}; home {how}")


def _search(
    robot: Robot, kinematics: InverseKinematics, near: float, low: float, *, freely: bool
) -> Float | None:
    """The most comfortable posture found with the tool at one place, or None."""
    depth, height = robot.workspace_upper[0] * _SHARE[0], robot.workspace_upper[2] * _SHARE[1]
    place = (min(_PLACE[0], depth) * near, 0.0, min(_PLACE[1], height) * low)
    wanted = [transform(ROTATION_DOWN @ turn, place) for turn in (_TURNS if freely else _TURNS[::2])]
    limits, rng = robot.limits, np.random.default_rng(0)
    bounds = np.maximum(limits.lower[:-1], -np.pi), np.minimum(limits.upper[:-1], np.pi)
    starts = rng.uniform(*bounds, size=(_STARTS, len(robot.joints)))
    reached = _reaching(robot, kinematics, zip(cycle(wanted), starts))
    if not reached:
        return None
    best = max(reached, key=lambda joints: _comfort(robot, joints))
    turned = _reaching(robot, kinematics, ((pose, best) for pose in wanted))  # the tool about its axis alone
    return max([best, *turned], key=lambda joints: _comfort(robot, joints))


def _reaching(
    robot: Robot, kinematics: InverseKinematics, tries: Iterable[tuple[Float, Float]]
) -> list[Float]:
    """Of pairs of a pose and where to start, the postures that reach their pose."""
    solved = [(pose, kinematics.solve(pose, start, _ITERATIONS)) for pose, start in tries]
    return [_unwound(robot, joints) for pose, joints in solved if _reaches(robot, joints, pose)]


def _is_over_the_table(robot: Robot, joints: Float) -> bool:
    limits = robot.limits
    if not (np.all(joints > limits.lower[:-1]) and np.all(joints < limits.upper[:-1])):
        return False
    pose = robot.transform_tcp_to_base(joints)
    inside = np.all(pose[:3, 3] > robot.workspace_lower) and np.all(pose[:3, 3] < robot.workspace_upper)
    return bool(inside and pose[2, 2] < _POINTS_DOWN)


def _reaches(robot: Robot, joints: Float, wanted: Float) -> bool:
    pose = robot.transform_tcp_to_base(joints)
    near = np.linalg.norm(pose[:3, 3] - wanted[:3, 3]) < _CLOSE
    tilt = _TILT if len(robot.joints) >= 6 else _TILT_SHORT
    return bool(near and pose[:3, 2] @ wanted[:3, 2] > np.cos(tilt))


def _unwound(robot: Robot, joints: Float) -> Float:
    """The same posture with angles within half a turn of zero, where the limits allow it."""
    near = (joints + np.pi) % (2 * np.pi) - np.pi
    limits = robot.limits
    return np.where((near > limits.lower[:-1]) & (near < limits.upper[:-1]), near, joints)


def _comfort(robot: Robot, joints: Float) -> float:
    """Mean height of the joints [m], less where some are low, angles are large, or near a limit."""
    pose, heights = np.eye(4), []
    for joint, angle in zip(robot.joints, joints):
        pose = pose @ transform(matrix_from_rpy(joint.origin_rpy), joint.origin_xyz)
        heights.append(pose[2, 3])
        pose = pose @ transform(matrix_from_rpy((0.0, 0.0, float(angle))), (0.0, 0.0, 0.0))
    limits = robot.limits
    room = np.minimum(joints - limits.lower[:-1], limits.upper[:-1] - joints).min()
    low = min(0.0, float(np.min(heights)) - 0.05)
    cramped = max(0.0, _ROOM - float(room))
    return float(np.mean(heights)) + low - _ROOMIER * cramped - _STRAIGHTER * float(np.abs(joints).mean())

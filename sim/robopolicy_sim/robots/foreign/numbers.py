"""The robot file that a user's model amounts to."""

from __future__ import annotations

import numpy as np

from robopolicy.core.errors import SpecError
from robopolicy.core.geometry import Float, matrix_from_rpy, transform
from robopolicy.core.robot import Gripper, Joint, Robot
from robopolicy_sim.robots.foreign.chain import Chain
from robopolicy_sim.robots.foreign.limits import find_limits
from robopolicy_sim.robots.foreign.options import Triple
from robopolicy_sim.robots.foreign.reading import ModelFile

_POSTURES = 300  # looked at for the reach
_REDUNDANT = 2  # of seven joints the third turns the elbow about the line from shoulder to wrist


def rpy_from_matrix(rotation: Float) -> Triple:
    """(3, 3) -> roll, pitch, yaw [rad]; where only their sum or difference is determined, yaw is zero."""
    cosine = float(np.hypot(rotation[0, 0], rotation[1, 0]))
    pitch = float(np.arctan2(-rotation[2, 0], cosine))
    if cosine < 1e-9:
        return float(np.arctan2(-rotation[1, 2], rotation[1, 1])), pitch, 0.0
    roll = float(np.arctan2(rotation[2, 1], rotation[2, 2]))
    return roll, pitch, float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def as_robot(
    file: ModelFile, chain: Chain, frames: list[Float], gripper: Gripper, notes: str, *, name: str
) -> Robot:
    """Names, limits and kinematics of an arm. Its home is the middle of its ranges, to be replaced.

    Args:
        frames: (4, 4) each in the base frame at zero angles: every joint's, then the tool's.
        gripper: its numbers.
        notes: where those are from.
        name: of the robot.
    Raises:
        ModelError: a joint without a range, or a name or number in the YAML that cannot be.
    """
    limits, defaults = find_limits(file, chain)
    steps = [np.linalg.inv(a) @ b for a, b in zip([np.eye(4), *frames[:-1]], frames)]
    origins = [(_xyz(step), rpy_from_matrix(step[:3, :3])) for step in steps]
    names = _driver_names(file, chain)
    redundant = names[_REDUNDANT] if len(names) == 7 else ""
    try:
        joints = tuple(
            Joint(n, *o, li.lower, li.upper, li.velocity, li.acceleration, li.jerk, li.effort)
            for n, o, li in zip(names, origins, limits)
        )
        lower, upper = _workspace(file, joints, steps[-1])
        return Robot(
            name=name,
            joints=joints,
            gripper=gripper,
            flange_to_tcp_xyz=origins[-1][0],
            flange_to_tcp_rpy=origins[-1][1],
            home=tuple((joint.lower + joint.upper) / 2 for joint in joints),
            workspace_lower=lower,
            workspace_upper=upper,
            source="; ".join(part for part in (f"read from {file.path.name}", defaults, notes) if part),
            base_frame=file.model.body(chain.root).name,
            redundant_joint=file.options.redundant_joint or redundant,
        )
    except SpecError as error:
        raise file.error(f"{error} ({file.yaml})") from error


def _xyz(pose: Float) -> Triple:
    x, y, z = (float(v) for v in pose[:3, 3])
    return x, y, z


def _driver_names(file: ModelFile, chain: Chain) -> list[str]:
    own, given = file.joint_names(chain.joints), file.options.names
    unknown = sorted(set(given) - set(own))
    if unknown:
        raise file.error(f"{file.yaml} gives names to unknown joints {unknown}; the arm's are {own}")
    names = [given.get(name, name) for name in own]
    if len(set(names)) < len(names):
        raise file.error(f"{file.yaml} gives two joints the same name: {names}")
    return names


def _workspace(file: ModelFile, joints: tuple[Joint, ...], flange_to_tcp: Float) -> tuple[Triple, Triple]:
    """The YAML's, or a box before the arm in the proportions of the FR3's to its reach."""
    if file.options.workspace is not None:
        return file.options.workspace.lower, file.options.workspace.upper
    rng, reach = np.random.default_rng(0), 0.0
    for _ in range(_POSTURES):
        pose = np.eye(4)
        for joint in joints:
            turn = matrix_from_rpy((0.0, 0.0, rng.uniform(joint.lower, joint.upper)))
            pose = pose @ transform(matrix_from_rpy(joint.origin_rpy), joint.origin_xyz)
            pose = pose @ transform(turn, (0.0, 0.0, 0.0))
        pose = pose @ flange_to_tcp
        reach = max(reach, float(np.hypot(pose[0, 3], pose[1, 3])))
    return (0.15 * reach, -0.65 * reach, 0.0), (reach, 0.65 * reach, 1.2 * reach)

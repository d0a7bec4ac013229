"""The gripper of a user's model, understood as two sliding fingers whose sum is the opening."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from robopolicy.core.geometry import Float, transform
from robopolicy.core.robot import Gripper
from robopolicy_sim.robots.foreign.chain import Chain
from robopolicy_sim.robots.foreign.reading import ModelFile

#: Where a file states none: speed of the opening [m/s], grasping force [N].
DEFAULT_SPEED, DEFAULT_FORCE = 0.1, 40.0
_ACCELERATION, _JERK = 2.0, 500.0  # [m/s^2], [m/s^3]
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_MESH = int(mujoco.mjtGeom.mjGEOM_MESH)


@dataclass(frozen=True)
class Finger:
    """One sliding joint.

    Args:
        joint: its name.
        sign: +1 where it opens towards its upper limit, -1 where towards its lower one.
        closed: position at which the opening is zero [m].
        stop: how far from there its limit keeps it [m]; 0 where the fingers meet.
    """

    joint: str
    sign: int
    closed: float
    stop: float


@dataclass(frozen=True)
class Fingers:
    """The two fingers, what the gripper can do, and the line in the world they move on at zero angles."""

    pair: tuple[Finger, Finger]
    gripper: Gripper
    axis: Float
    notes: str


def find_fingers(file: ModelFile, chain: Chain) -> Fingers | None:
    """The gripper beyond the flange, or None where there is none or ours is asked for.

    Raises:
        ModelError: it has other joints than two sliding ones with ranges, or no tool centre point; says what
            to do.
    """
    if file.options.gripper == "ours" or not chain.gripper:
        return None
    _check(file, chain)
    model, names = file.model, file.joint_names(chain.gripper)
    ranges = np.array([model.jnt_range[j] for j in chain.gripper])
    signs = _signs(model, chain, ranges)
    travel = float(np.ptp(ranges, axis=1).min())
    shut = np.where(signs > 0, ranges[:, 0], ranges[:, 1])
    opened = shut + signs * travel
    width = _width_at_tool(model, chain, opened)
    opening = width if width is not None else 2 * travel
    closed = opened - signs * opening / 2
    speeds = [file.velocities[n] for n in names if n in file.velocities]
    speed = 2 * min(speeds) if speeds else DEFAULT_SPEED
    force, of_force = _force(model, chain)
    gripper = Gripper("gripper_opening", opening, speed, _ACCELERATION, _JERK, force)
    stops = np.maximum(signs * (shut - closed), 0.0)
    pair = [Finger(n, int(s), float(c), float(d)) for n, s, c, d in zip(names, signs, closed, stops)]
    axis = np.array(_placed(model, chain, opened).xaxis[chain.gripper[0]])
    notes = f"gripper speed {'from the file' if speeds else f'{speed:g} m/s by default'}, force {of_force}"
    return Fingers((pair[0], pair[1]), gripper, axis, notes)


def _check(file: ModelFile, chain: Chain) -> None:
    model, names = file.model, ", ".join(file.joint_names(chain.gripper))
    if len(chain.gripper) != 2 or any(model.jnt_type[j] != _SLIDE for j in chain.gripper):
        raise file.error(
            f"the joints beyond the flange are {names}; a gripper is two sliding fingers. Linkages and jaws "
            f"that turn are not read: write 'gripper: ours' into {file.yaml} to have it cut off and a "
            f"parallel gripper put on the flange"
        )
    if not all(model.jnt_limited[j] for j in chain.gripper):
        raise file.error(f"the fingers {names} need a range each, from closed to open [m]")
    if chain.is_flange:
        raise file.error(
            f"the arm has a gripper ({names}), but no point between its fingertips is named. Add a site "
            f"'tcp' there, z pointing out of the gripper, or say in {file.yaml} where it is: "
            f"'tool: {{at: NAME, xyz: [0, 0, 0.1]}}'"
        )


def _placed(model: mujoco.MjModel, chain: Chain, fingers: Float) -> mujoco.MjData:
    """Kinematics with the arm's joints at zero and the two fingers somewhere."""
    data = mujoco.MjData(model)
    data.qpos[model.jnt_qposadr[list(chain.joints)]] = 0.0
    data.qpos[model.jnt_qposadr[list(chain.gripper)]] = fingers
    mujoco.mj_kinematics(model, data)
    return data


def _geoms(model: mujoco.MjModel, joint: int) -> list[int]:
    """What is fixed to a finger and can be touched, or else can be seen."""
    finger = model.jnt_bodyid[joint]
    own = [g for g in range(model.ngeom) if model.body_weldid[model.geom_bodyid[g]] == finger]
    felt = [g for g in own if model.geom_contype[g] or model.geom_conaffinity[g]]
    return felt or own


def _distance(model: mujoco.MjModel, chain: Chain, fingers: Float) -> float:
    """Between the centres of the two fingers [m]."""
    data = _placed(model, chain, fingers)
    centres = []
    for joint in chain.gripper:
        geoms = _geoms(model, joint)
        centres.append(data.geom_xpos[geoms].mean(axis=0) if geoms else data.xipos[model.jnt_bodyid[joint]])
    return float(np.linalg.norm(centres[0] - centres[1]))


def _signs(model: mujoco.MjModel, chain: Chain, ranges: Float) -> Float:
    """(2,) which way each finger opens: the way that takes its centre away from the other's."""
    signs = np.ones(2)
    for i in range(2):
        low, high = ranges.mean(axis=1), ranges.mean(axis=1)
        low[i], high[i] = ranges[i]
        if _distance(model, chain, high) < _distance(model, chain, low):
            signs[i] = -1.0
    return signs


def _width_at_tool(model: mujoco.MjModel, chain: Chain, fingers: Float) -> float | None:
    """Free width at the tool centre point [m]; None where the fingers have no shape there.

    Travel alone would not do: the fingers of some grippers meet before the end of it, of others never.
    """
    data = _placed(model, chain, fingers)
    carrier = transform(data.xmat[chain.body].reshape(3, 3), data.xpos[chain.body])
    tool = (carrier @ chain.transform_tool_to_body)[:3, 3].copy()
    width = 0.0
    for joint in chain.gripper:
        ways = (data.xaxis[joint].copy(), -data.xaxis[joint])
        hits = [_ray(model, data, geom, tool, way) for geom in _geoms(model, joint) for way in ways]
        hits = [hit for hit in hits if hit > 0]
        if not hits:
            return None
        width += min(hits)
    return width


def _ray(model: mujoco.MjModel, data: mujoco.MjData, geom: int, start: Float, way: Float) -> float:
    """Distance from a point to a geom along a direction [m]; negative where it is not hit."""
    if model.geom_type[geom] == _MESH:
        return float(mujoco.mj_rayMesh(model, data, geom, start, way))
    position, rotation, size = data.geom_xpos[geom], data.geom_xmat[geom], model.geom_size[geom]
    return float(mujoco.mju_rayGeom(position, rotation, size, start, way, int(model.geom_type[geom])))


def _force(model: mujoco.MjModel, chain: Chain) -> tuple[float, str]:
    """Grasping force [N] by the fingers' own limits, and where it is from."""
    limits = [np.abs(model.jnt_actfrcrange[j]).min() for j in chain.gripper if model.jnt_actfrclimited[j]]
    if limits and min(limits) > 0:
        return 2 * float(min(limits)), "from the fingers' limits"
    return DEFAULT_FORCE, f"{DEFAULT_FORCE:g} N by default"

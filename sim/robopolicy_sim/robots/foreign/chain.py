"""Which joints of a model are the arm's, which the gripper's, and where the tool sits."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import mujoco
import numpy as np

from robopolicy.core.geometry import Float, matrix_from_quat_wxyz, matrix_from_rpy, transform
from robopolicy_sim.robots.foreign.options import Place
from robopolicy_sim.robots.foreign.reading import ModelFile

#: Names of the point between the fingertips, and of the face a gripper is screwed on; the first found counts.
TOOL_NAMES = (
    *("tcp", "*_tcp", "*tcp*", "pinch*", "*grip_site", "*grasp_site"),
    *("gripperframe", "*gripper_frame*"),
)
FLANGE_NAMES = (
    *("attachment_site", "tool0", "*tool0", "flange", "*flange*"),
    *("*ee_link", "*eef*", "*end_effector*", "ee"),
)
_FREE, _BALL, _SLIDE, _HINGE = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("FREE", "BALL", "SLIDE", "HINGE")
)
_KINDS = {_FREE: "free", _BALL: "ball", _SLIDE: "sliding"}


@dataclass(frozen=True)
class Chain:
    """The arm within a model.

    Args:
        root: the body of the world's that holds all of it.
        joints: ids of the hinge joints, base to flange.
        gripper: ids of the joints beyond the flange.
        body: id of the body that carries the tool.
        transform_tool_to_body: (4, 4).
        is_flange: the tool was found by a flange's name.
    """

    root: int
    joints: tuple[int, ...]
    gripper: tuple[int, ...]
    body: int
    transform_tool_to_body: Float
    is_flange: bool


def find_chain(file: ModelFile) -> Chain:
    """The arm of a model, by the name of its tool or flange.

    Raises:
        ModelError: no such name; no hinge joint on the way there; a joint elsewhere, of another kind, or a
            floating base.
    """
    model = file.model
    place, is_flange = _wanted_place(file)
    body, local = _resolve(file, place)
    way = _up_to_world(model, body)
    joints = [j for b in reversed(way) for j in _joints_of(model, b)]
    while joints and model.jnt_type[joints[-1]] == _SLIDE:  # the place is on a finger
        finger = int(model.jnt_bodyid[joints.pop()])
        local = transform(matrix_from_quat_wxyz(model.body_quat[finger]), model.body_pos[finger]) @ local
        body = int(model.body_parentid[finger])
    for joint in joints:
        if model.jnt_type[joint] != _HINGE:
            raise file.error(_unsupported(model, joint))
    if not joints:
        raise file.error(f"no hinge joint lies between the world and {place.at!r}")
    root, flange = way[-1], int(model.jnt_bodyid[joints[-1]])
    rest = [j for j in range(model.njnt) if j not in joints]
    gripper = [j for j in rest if flange in _up_to_world(model, int(model.jnt_bodyid[j]))]
    branch = [j for j in rest if j not in gripper and root in _up_to_world(model, int(model.jnt_bodyid[j]))]
    if branch:
        raise file.error(
            f"joints {', '.join(file.joint_names(tuple(branch)))} branch off before the flange; an arm is a "
            f"single row of joints. Make a file of only the arm that ends in {place.at!r}"
        )
    return Chain(root, tuple(joints), tuple(gripper), body, local, is_flange)


def flange_place(file: ModelFile, chain: Chain) -> tuple[int, Float]:
    """Body and (4, 4) pose in it where our gripper is put on: the flange, by its name, else the tool.

    Raises:
        ModelError: the place is not on the last link, or nothing but the tool of a gripper to be cut off.
    """
    model = file.model
    place = file.options.flange or _match(model, FLANGE_NAMES)
    last = file.joint_names(chain.joints)[-1]
    if place is None and chain.gripper:
        raise file.error(
            f"where to put the gripper on after joint {last}? Say which site, body or link it is, z pointing "
            f"out of the arm, in {file.yaml}: 'flange: {{at: NAME, xyz: [0, 0, 0]}}'; {_places(model)}"
        )
    if place is None:
        return chain.body, chain.transform_tool_to_body
    body, local = _resolve(file, place)
    if int(model.jnt_bodyid[chain.joints[-1]]) not in _up_to_world(model, body):
        raise file.error(f"flange {place.at!r} is not beyond joint {last}")
    return body, local


def _wanted_place(file: ModelFile) -> tuple[Place, bool]:
    options = file.options
    if options.tool is not None:
        return options.tool, False
    if options.gripper == "ours" and options.flange is not None:
        return options.flange, True
    tool, flange = _match(file.model, TOOL_NAMES), _match(file.model, FLANGE_NAMES)
    if tool is not None:
        return tool, False
    if flange is not None:
        return flange, True
    raise file.error(
        f"no tool found. Add a site 'tcp' between the fingertips (for an arm without a gripper: "
        f"'attachment_site' on its flange), z pointing out of the arm; or say which site, body or link it is "
        f"in {file.yaml}: 'tool: {{at: NAME, xyz: [0, 0, 0.1]}}' or 'flange: {{at: NAME}}'. The model has "
        f"{_places(file.model)}"
    )


def _match(model: mujoco.MjModel, patterns: tuple[str, ...]) -> Place | None:
    """The first site, else body, whose name fits the earliest pattern."""
    for pattern in patterns:
        for name in (*_names(model, "site"), *_names(model, "body")):
            if fnmatchcase(name.lower(), pattern):
                return Place(name)
    return None


def _resolve(file: ModelFile, place: Place) -> tuple[int, Float]:
    model = file.model
    offset = transform(matrix_from_rpy(place.rpy), place.xyz)
    site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, place.at)
    if site >= 0:
        rotation = matrix_from_quat_wxyz(model.site_quat[site])
        return int(model.site_bodyid[site]), transform(rotation, model.site_pos[site]) @ offset
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, place.at)
    if body > 0:
        return body, offset
    raise file.error(f"no site, body or link {place.at!r}; the model has {_places(model)}")


def _names(model: mujoco.MjModel, kind: str) -> list[str]:
    indices = range(model.nsite) if kind == "site" else range(1, model.nbody)
    return [name for i in indices if (name := getattr(model, kind)(i).name)]


def _places(model: mujoco.MjModel) -> str:
    sites, bodies = (", ".join(_names(model, kind)) or "none" for kind in ("site", "body"))
    return f"sites {sites} and bodies {bodies}"


def _joints_of(model: mujoco.MjModel, body: int) -> list[int]:
    first = int(model.body_jntadr[body])
    return list(range(first, first + int(model.body_jntnum[body])))


def _up_to_world(model: mujoco.MjModel, body: int) -> list[int]:
    """A body and all above it, without the world."""
    way = []
    while body != 0:
        way.append(body)
        body = int(model.body_parentid[body])
    return way


def _unsupported(model: mujoco.MjModel, joint: int) -> str:
    kind = int(model.jnt_type[joint])
    advice = (
        "an arm stands on a fixed base: remove its freejoint"
        if kind == _FREE
        else "an arm is a row of hinge joints: fix others in place, or make them hinges"
    )
    return f"joint {model.joint(joint).name} is a {_KINDS[kind]} joint; {advice}"


def bodies_to_cut(file: ModelFile, chain: Chain, flange: int) -> tuple[str, ...]:
    """Names of the bodies that carry the joints beyond the flange, as far up as leaves the flange itself."""
    model, kept = file.model, {0, *_up_to_world(file.model, flange)}
    cut = []
    for joint in chain.gripper:
        body = int(model.jnt_bodyid[joint])
        while int(model.body_parentid[body]) not in kept:
            body = int(model.body_parentid[body])
        cut.append(model.body(body).name)
    return tuple(dict.fromkeys(cut))


def kinematic_frames(model: mujoco.MjModel, chain: Chain) -> list[Float]:
    """(4, 4) frames in the world at joint angles of zero: of each joint, z its axis, then of the tool."""
    data = mujoco.MjData(model)
    data.qpos[model.jnt_qposadr[list(chain.joints)]] = 0.0
    mujoco.mj_kinematics(model, data)
    frames = []
    for joint in chain.joints:
        body = data.xmat[model.jnt_bodyid[joint]].reshape(3, 3)
        frames.append(transform(body @ _turn_z_to(model.jnt_axis[joint]), data.xanchor[joint]))
    carrier = transform(data.xmat[chain.body].reshape(3, 3), data.xpos[chain.body])
    return [*frames, carrier @ chain.transform_tool_to_body]


def _turn_z_to(axis: Float) -> Float:
    """The smallest rotation that brings z to a unit axis (Rodrigues)."""
    cross, cosine = np.array([-axis[1], axis[0], 0.0]), float(axis[2])
    if cosine < -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    skew = np.array([[0, 0, cross[1]], [0, 0, -cross[0]], [-cross[1], cross[0], 0]])
    rotation: Float = np.eye(3) + skew + skew @ skew / (1 + cosine)
    return rotation

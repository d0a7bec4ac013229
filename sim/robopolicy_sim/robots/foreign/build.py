"""The model to simulate: a user's arm under names that clash with none, with servos, gripper and camera."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from robopolicy.core.geometry import Float, matrix_from_rpy, quat_wxyz_from_matrix
from robopolicy.core.robot import Robot
from robopolicy_sim.robots.foreign.fingers import Fingers
from robopolicy_sim.robots.foreign.gripper import OURS_LENGTH, put_ours_on, slide_from_zero
from robopolicy_sim.robots.foreign.reading import ModelFile
from robopolicy_sim.robots.foreign.servo import compensate_gravity, keep_or_add_servos, tune_servos

_EMPTY = """
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.002" integrator="implicitfast" cone="elliptic" impratio="10">
    <flag autoreset="disable"/>
  </option>
</mujoco>
"""
_ARM_BITS = (2, 1)  # the arm never collides with itself; everything else does, with MuJoCo's default bits
_NOT_DRAWN = 3  # geom group
_SITE_GROUP = 4
#: Of the wrist camera: before the gripper, tilted 15 degrees towards the fingertips, as on our own robots.
_CAMERA_IN_TOOL = np.array([0.068, 0.0, -0.0794])
_C, _S = np.cos(np.pi / 12), np.sin(np.pi / 12)
_CAMERA_ROTATION = np.array([[0.0, _C, _S], [1.0, 0.0, 0.0], [0.0, _S, -_C]])
_CAMERA_FOVY = 75.0  # [degrees]


@dataclass(frozen=True)
class Parts:
    """What of the user's model is used, by its own names.

    Args:
        root: body that holds the arm.
        joints: the arm's, base to flange.
        cut: bodies to leave out, with everything on them.
        body: what carries the tool, or the flange for our gripper.
        transform_to_body: (4, 4) of the tool, or of the flange, in that body.
        fingers: of the model's own gripper, or None for ours.
    """

    root: str
    joints: tuple[str, ...]
    cut: tuple[str, ...]
    body: str
    transform_to_body: Float
    fingers: Fingers | None


def build(file: ModelFile, parts: Parts, robot: Robot) -> tuple[mujoco.MjSpec, tuple[str, str]]:
    """Turn a user's model into one that ``Simulation`` understands; the file's spec is used up.

    Returns:
        The model, and the names of its two finger joints.
    Raises:
        ModelError: a tendon or an equality holds an arm joint, or MuJoCo refuses the whole.
    """
    prefix = f"{robot.name}/"
    try:
        spec = _taken_over(file, parts, prefix)
        renamed = _rename_joints(spec, file, parts, robot, prefix)
        _set_shapes(spec, is_urdf=file.is_urdf)
        added = keep_or_add_servos(spec, robot, renamed, replace=file.options.servo == "ours")
        fingers = _add_gripper(spec, parts, robot, prefix)
        if file.options.gravity == "compensated":
            compensate_gravity(spec, robot)
        if added:
            tune_servos(spec, robot)
        spec.compile()
    except ValueError as error:
        raise file.error(str(error)) from error
    return spec, fingers


def _taken_over(file: ModelFile, parts: Parts, prefix: str) -> mujoco.MjSpec:
    """The arm's bodies alone in an empty model: no floor, light, key or sensor of the user's, nor options."""
    given, options = file.spec, file.options
    for name in parts.cut:
        given.delete(given.body(name))
    for element in (*given.keys, *given.sensors):
        given.delete(element)
    spec = mujoco.MjSpec.from_string(_EMPTY)
    given.option, given.visual, given.stat = spec.option, spec.visual, spec.stat
    quat_wxyz = quat_wxyz_from_matrix(matrix_from_rpy(options.mount_rpy))
    frame = spec.worldbody.add_frame(pos=options.mount_xyz, quat=quat_wxyz)
    frame.attach_body(given.body(parts.root), prefix, "")
    for light in list(spec.lights):
        spec.delete(light)
    return spec


def _rename_joints(
    spec: mujoco.MjSpec, file: ModelFile, parts: Parts, robot: Robot, prefix: str
) -> dict[str, str]:
    """Give the arm's joints the driver's names and limits; returns their names before -> after."""
    renamed = {prefix + old: joint.name for old, joint in zip(parts.joints, robot.joints)}
    for tendon in spec.tendons:
        if any(getattr(wrap.target, "name", "") in renamed for wrap in tendon.path):
            raise file.error(
                f"tendon {tendon.name.removeprefix(prefix)} pulls at a joint of the arm; remove it"
            )
    for equality in spec.equalities:
        held = [name.removeprefix(prefix) for name in (equality.name1, equality.name2) if name in renamed]
        if held:
            raise file.error(f"an equality holds joint {held[0]} of the arm; remove it")
    for old, joint in zip(renamed, robot.joints):
        element = spec.joint(old)
        unit = np.degrees(1.0) if element.compiler.degree else 1.0
        element.range, element.limited = [joint.lower * unit, joint.upper * unit], True
        element.name = joint.name
    return renamed


def _set_shapes(spec: mujoco.MjSpec, *, is_urdf: bool) -> None:
    """Collision bits; and where a link of a URDF has shapes to be seen, those to be felt are not drawn."""
    for body in spec.bodies:
        felt = [g for g in body.geoms if g.contype or g.conaffinity]
        for geom in felt:
            geom.contype, geom.conaffinity = _ARM_BITS
            if is_urdf and len(felt) < len(body.geoms):
                geom.group = _NOT_DRAWN


def _add_gripper(spec: mujoco.MjSpec, parts: Parts, robot: Robot, prefix: str) -> tuple[str, str]:
    """The model's own or ours, with the tool's site and the wrist camera; returns the finger joints."""
    pose = parts.transform_to_body
    if parts.fingers is None:
        fingers = put_ours_on(spec, prefix + parts.body, pose, robot.name)
        carrier, rotation, position = f"{robot.name}_hand", np.eye(3), np.array([0.0, 0.0, OURS_LENGTH])
    else:
        fingers = slide_from_zero(spec, parts.fingers, prefix)
        carrier, rotation, position = prefix + parts.body, pose[:3, :3], pose[:3, 3]
        quat_wxyz = quat_wxyz_from_matrix(rotation)
        spec.body(carrier).add_site(name=f"{robot.name}_tcp", pos=position, quat=quat_wxyz, group=_SITE_GROUP)
    own = spec.camera(f"{prefix}wrist_camera")
    if own is not None:
        own.name = "wrist_camera"
    else:
        spec.body(carrier).add_camera(
            name="wrist_camera",
            pos=position + rotation @ _CAMERA_IN_TOOL,
            quat=quat_wxyz_from_matrix(rotation @ _CAMERA_ROTATION),
            fovy=_CAMERA_FOVY,
        )
    return fingers

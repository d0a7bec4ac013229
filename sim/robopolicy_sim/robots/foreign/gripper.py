"""Puts a gripper in order that ``Simulation`` can command: the model's own fingers, or ours on the flange."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from robopolicy import robots
from robopolicy.core.geometry import Float, quat_wxyz_from_matrix
from robopolicy.core.robot import Gripper
from robopolicy_sim.robots.foreign.fingers import Fingers

OURS = Path(__file__).parents[1] / "grippers" / "parallel.xml"
OURS_LENGTH = 0.152  # [m] flange to tool centre point, as in parallel.xml
_ARMATURE = 0.1  # [kg] least a finger's drive weighs, as in our own models
_STIFFNESS, _DAMPING = 1500.0, 25.0  # [N/m], [N s/m] of the opening, as in our own models
_COUPLING = (0.004, 1.0)  # solref of the two fingers' equality


def our_gripper() -> Gripper:
    """The numbers of the gripper an arm without one gets."""
    return robots.load("ur5e").gripper


def slide_from_zero(spec: mujoco.MjSpec, fingers: Fingers, prefix: str) -> tuple[str, str]:
    """Make both fingers read 0 closed and grow as they open, couple them, and add an actuator of the opening.

    Returns:
        The two joints' names.
    """
    names = []
    for finger in fingers.pair:
        joint = spec.joint(prefix + finger.joint)
        joint.range = [finger.stop, fingers.gripper.opening_max / 2]
        joint.ref = finger.sign * (joint.ref - finger.closed)
        joint.axis = finger.sign * np.asarray(joint.axis)
        joint.armature = max(float(np.ravel(joint.armature)[0]), _ARMATURE)
        joint.actfrclimited = False
        names.append(joint.name)
    for equality in list(spec.equalities):
        if equality.name1 in names or equality.name2 in names:
            spec.delete(equality)
    _couple(spec, names)
    tendon = spec.add_tendon(name=f"{prefix}opening")
    for name in names:
        tendon.wrap_joint(name, 1.0)
    add_opening_actuator(spec, tendon.name, fingers.gripper)
    return names[0], names[1]


def _couple(spec: mujoco.MjSpec, names: list[str]) -> None:
    equality = spec.add_equality(name1=names[0], name2=names[1])
    equality.type = mujoco.mjtEq.mjEQ_JOINT
    equality.objtype = mujoco.mjtObj.mjOBJ_JOINT
    equality.data[:5] = [0.0, 1.0, 0.0, 0.0, 0.0]
    equality.solref[:2] = _COUPLING


def put_ours_on(
    spec: mujoco.MjSpec, body: str, transform_flange_to_body: Float, name: str
) -> tuple[str, str]:
    """Attach our parallel gripper with its site NAME_tcp; returns its finger joints' names."""
    quat_wxyz = quat_wxyz_from_matrix(transform_flange_to_body[:3, :3])
    frame = spec.body(body).add_frame(pos=transform_flange_to_body[:3, 3], quat=quat_wxyz)
    frame.attach_body(mujoco.MjSpec.from_file(str(OURS)).body("hand"), f"{name}_", "")
    add_opening_actuator(spec, f"{name}_opening", our_gripper())
    return f"{name}_finger_joint1", f"{name}_finger_joint2"


def add_opening_actuator(spec: mujoco.MjSpec, tendon: str, gripper: Gripper) -> None:
    """A position servo named as the gripper, of a tendon whose length is the opening."""
    actuator = spec.add_actuator(name=gripper.name, target=tendon, trntype=mujoco.mjtTrn.mjTRN_TENDON)
    actuator.set_to_position(kp=_STIFFNESS, kv=_DAMPING)
    actuator.ctrlrange = [0.0, gripper.opening_max]
    actuator.forcerange = [-gripper.force, gripper.force]
    actuator.ctrllimited = actuator.forcelimited = True

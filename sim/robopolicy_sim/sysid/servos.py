"""Read a model's parameters, and write others into it."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from robopolicy.core.errors import ConfigError
from robopolicy_sim.errors import ModelError
from robopolicy_sim.robots import SimulatedRobot
from robopolicy_sim.sysid.parameters import RobotParameters

_AFFINE = int(mujoco.mjtBias.mjBIAS_AFFINE)


@dataclass(frozen=True)
class Servo:
    """One commanded dimension: its actuator, and the degrees of freedom it moves (two fingers, say)."""

    name: str
    actuator: int
    dofs: tuple[int, ...]


def servos(model: mujoco.MjModel, arm: SimulatedRobot) -> list[Servo]:
    """Arm joints, then the gripper.

    Raises:
        ModelError: an actuator is no position servo, so it has no kp and kv.
    """
    found = []
    for name in (*arm.robot.joint_names, arm.robot.gripper.name):
        joints = arm.finger_joints if name == arm.robot.gripper.name else (name,)
        actuator = model.actuator(name).id
        if int(model.actuator_biastype[actuator]) != _AFFINE:
            raise ModelError(f"actuator {name!r} is no position servo")
        found.append(Servo(name, actuator, tuple(int(model.joint(j).dofadr[0]) for j in joints)))
    return found


def read(model: mujoco.MjModel, arm: SimulatedRobot) -> RobotParameters:
    """Every value the model has now; models know no delay."""
    joints = {}
    for servo in servos(model, arm):
        dof = servo.dofs[0]
        joints[servo.name] = {
            "kp": float(model.actuator_gainprm[servo.actuator, 0]),
            "kv": float(-model.actuator_biasprm[servo.actuator, 2]),
            "damping": float(model.dof_damping[dof]),
            "armature": float(model.dof_armature[dof]),
            "frictionloss": float(model.dof_frictionloss[dof]),
        }
    return RobotParameters(arm.robot.name, joints)


def write(model: mujoco.MjModel, arm: SimulatedRobot, parameters: RobotParameters) -> None:
    """Put parameters into a model; the delay is not the model's.

    Raises:
        ConfigError: they belong to another robot or name a joint that this one lacks.
    """
    if parameters.robot != arm.robot.name:
        raise ConfigError(f"parameters of robot {parameters.robot!r} do not fit {arm.robot.name!r}")
    known = {servo.name: servo for servo in servos(model, arm)}
    for name, values in parameters.joints.items():
        if name not in known:
            raise ConfigError(f"parameters name {name!r}; {arm.robot.name} has {', '.join(known)}")
        _write_servo(model, known[name], dict(values))
    mujoco.mj_setConst(model, mujoco.MjData(model))  # constants that depend on inertia


def _write_servo(model: mujoco.MjModel, servo: Servo, values: dict[str, float]) -> None:
    dofs = list(servo.dofs)
    if "kp" in values:
        model.actuator_gainprm[servo.actuator, 0] = values["kp"]
        model.actuator_biasprm[servo.actuator, 1] = -values["kp"]
    if "kv" in values:
        model.actuator_biasprm[servo.actuator, 2] = -values["kv"]
    for kind in ("damping", "armature", "frictionloss"):
        if kind in values:
            getattr(model, f"dof_{kind}")[dofs] = values[kind]

"""Position servos of a user's arm: those of its model, or critically damped ones."""

from __future__ import annotations

import mujoco
import numpy as np

from robopolicy.core.robot import Robot

_BANDWIDTH = 100.0  # [rad/s] of our servos, as in our own models: a ramp is followed with a lag of 20 ms
_ARMATURE = 0.2  # of the largest joint's inertia: reflected rotor inertia where a model has none


def keep_or_add_servos(spec: mujoco.MjSpec, robot: Robot, joints: dict[str, str], *, replace: bool) -> bool:
    """Give every arm joint one position actuator of its name; all other actuators go.

    Args:
        spec: the arm alone, its joints already named as in ``robot``.
        joints: the name a joint had, which actuators still aim at -> its name now.
        replace: do not keep the model's.
    Returns:
        Whether servos were added; then all are ours, and want tuning.
    """
    found: dict[str, mujoco.MjsActuator] = {}
    for actuator in list(spec.actuators):
        if actuator.target in joints and _is_position_servo(actuator):
            found.setdefault(joints[actuator.target], actuator)
    keep = not replace and len(found) == len(robot.joints)
    for actuator in list(spec.actuators):
        if not keep or actuator.name not in {a.name for a in found.values()}:
            spec.delete(actuator)
    if keep:
        for name, actuator in found.items():
            actuator.name, actuator.target = name, name
    else:
        _add_servos(spec, robot)
    return not keep


def _is_position_servo(actuator: mujoco.MjsActuator) -> bool:
    """Force kp (ctrl - q) - kv dq/dt, whatever it was called in the file."""
    return bool(
        actuator.trntype == mujoco.mjtTrn.mjTRN_JOINT
        and actuator.gaintype == mujoco.mjtGain.mjGAIN_FIXED
        and actuator.biastype == mujoco.mjtBias.mjBIAS_AFFINE
        and actuator.gainprm[0] > 0
        and actuator.biasprm[0] == 0
        and np.isclose(actuator.biasprm[1], -actuator.gainprm[0])
        and actuator.gear[0] == 1
    )


def _add_servos(spec: mujoco.MjSpec, robot: Robot) -> None:
    for joint in robot.joints:
        element = spec.joint(joint.name)
        element.actfrcrange, element.actfrclimited = [-joint.effort, joint.effort], True
        actuator = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=1.0, kv=0.0)
        actuator.ctrlrange, actuator.ctrllimited = [joint.lower, joint.upper], True
        actuator.forcerange, actuator.forcelimited = [-joint.effort, joint.effort], True


def compensate_gravity(spec: mujoco.MjSpec, robot: Robot) -> None:
    """As a controller that knows the arm does; it counts towards the effort limits."""
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    for joint in robot.joints:
        spec.joint(joint.name).actgravcomp = True


def tune_servos(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Gains of added servos: critically damped for each joint's inertia at home, armature included."""
    model = spec.compile()
    data = mujoco.MjData(model)
    for name, angle in zip(robot.joint_names, robot.home):
        data.qpos[model.joint(name).qposadr[0]] = angle
    mujoco.mj_forward(model, data)
    mass = np.empty((model.nv, model.nv))
    mujoco.mj_fullM(model, data, mass)
    dofs = [int(model.joint(name).dofadr[0]) for name in robot.joint_names]
    inertia = np.diag(mass)[dofs].copy()
    bare = model.dof_armature[dofs] == 0
    armature = np.where(bare, _ARMATURE * inertia.max(), model.dof_armature[dofs])
    inertia += np.where(bare, armature, 0.0)
    damping = np.maximum(2 * inertia * _BANDWIDTH - model.dof_damping[dofs], 0.0)
    for i, name in enumerate(robot.joint_names):
        spec.joint(name).armature = float(armature[i])
        spec.actuator(name).set_to_position(kp=float(inertia[i]) * _BANDWIDTH**2, kv=float(damping[i]))

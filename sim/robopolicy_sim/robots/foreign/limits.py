"""Limits of an arm's joints: the model's, the YAML's, or defaults that are said to be ours."""

from __future__ import annotations

from dataclasses import dataclass, fields

import mujoco
import numpy as np

from robopolicy.core.geometry import Float
from robopolicy_sim.robots.foreign.chain import Chain
from robopolicy_sim.robots.foreign.options import JointLimits
from robopolicy_sim.robots.foreign.reading import ModelFile

#: Where neither the model nor the YAML says: slow enough for any arm of a table's size.
DEFAULT_VELOCITY = 1.5  # [rad/s]
DEFAULT_ACCELERATION = 5.0  # [rad/s^2]
DEFAULT_JERK = 500.0  # [rad/s^3]
_EFFORT_MARGIN = 3.0  # default effort over the largest torque that gravity takes
_EFFORT_FLOOR = 0.1  # of the strongest joint's: wrists turn against what the hand touches, too
_POSTURES = 200  # looked at for that
_ALL = "all"  # the YAML's key for every joint


@dataclass(frozen=True)
class Limits:
    """Of one joint, complete: [rad], [rad/s], [rad/s^2], [rad/s^3], [N m]."""

    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float
    effort: float


def find_limits(file: ModelFile, chain: Chain) -> tuple[list[Limits], str]:
    """Limits of each arm joint, and in words which of them are defaults.

    Raises:
        ModelError: a joint without a range, an empty range, or limits of a joint that is not there.
    """
    names = file.joint_names(chain.joints)
    file_limits = file.options.limits
    unknown = sorted(set(file_limits) - {*names, _ALL})
    if unknown:
        raise file.error(f"{file.yaml} gives limits of unknown joints {unknown}; the arm's are {names}")
    own = [_merged(file_limits.get(n, JointLimits()), file_limits.get(_ALL, JointLimits())) for n in names]
    ranges = _ranges(file, chain, own)
    stated = [_stated_effort(file.model, j) for j in chain.joints]
    default = _default_efforts(file.model, chain) if None in stated else np.zeros(len(own))
    limits = [
        Limits(
            *span,
            velocity=_first(o.velocity, file.velocities.get(name), DEFAULT_VELOCITY),
            acceleration=_first(o.acceleration, DEFAULT_ACCELERATION),
            jerk=_first(o.jerk, DEFAULT_JERK),
            effort=_first(o.effort, known, float(torque)),
        )
        for name, span, o, known, torque in zip(names, ranges, own, stated, default)
    ]
    return limits, _defaults_used(file, chain, own)


def _first(*values: float | None) -> float:
    """The first that is given; NaN where none is."""
    return next((value for value in values if value is not None), float("nan"))


def _merged(own: JointLimits, everyone: JointLimits) -> JointLimits:
    """A joint's own limits, and where it has none, every joint's."""
    values = {f.name: (getattr(own, f.name), getattr(everyone, f.name)) for f in fields(JointLimits)}
    return JointLimits(**{key: a if a is not None else b for key, (a, b) in values.items()})


def _ranges(file: ModelFile, chain: Chain, own: list[JointLimits]) -> list[tuple[float, float]]:
    ranges, missing = [], []
    for joint, name, limits in zip(chain.joints, file.joint_names(chain.joints), own):
        limited = bool(file.model.jnt_limited[joint])
        low, high = (float(bound) if limited else None for bound in file.model.jnt_range[joint])
        lower = limits.lower if limits.lower is not None else low
        upper = limits.upper if limits.upper is not None else high
        if lower is None or upper is None:
            missing.append(name)
            continue
        if not lower < upper:
            raise file.error(f"joint {name}: lower limit {lower} is not below the upper, {upper} [rad]")
        ranges.append((lower, upper))
    if missing:
        raise file.error(
            f"joints without a range: {', '.join(missing)}. Give them one in the model, or in {file.yaml}: "
            f"'limits: {{{missing[0]}: {{lower: -3.1, upper: 3.1}}}}' [rad]"
        )
    return ranges


def _stated_effort(model: mujoco.MjModel, joint: int) -> float | None:
    """Of the joint, or of the actuator that turns it [N m]."""
    if model.jnt_actfrclimited[joint] and np.abs(model.jnt_actfrcrange[joint]).min() > 0:
        return float(np.abs(model.jnt_actfrcrange[joint]).min())
    for actuator in range(model.nu):
        turns = model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_JOINT
        if turns and model.actuator_trnid[actuator, 0] == joint and model.actuator_forcelimited[actuator]:
            torque = model.actuator_forcerange[actuator] * model.actuator_gear[actuator, 0]
            return float(np.abs(torque).min()) or None
    return None


def _default_efforts(model: mujoco.MjModel, chain: Chain) -> Float:
    """(num_joints,) what gravity takes at most, with a margin, and what the default acceleration takes."""
    joints = list(chain.joints)
    dofs = model.jnt_dofadr[joints]
    low, high = np.where(model.jnt_limited[joints, None], model.jnt_range[joints], (-np.pi, np.pi)).T
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    torque, inertia, mass = np.zeros(len(dofs)), np.zeros(len(dofs)), np.empty((model.nv, model.nv))
    for _ in range(_POSTURES):
        data.qpos[model.jnt_qposadr[joints]] = rng.uniform(low, high)
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, mass)
        torque = np.maximum(torque, np.abs(data.qfrc_bias[dofs]))
        inertia = np.maximum(inertia, np.diag(mass)[dofs])
    default: Float = _EFFORT_MARGIN * torque + DEFAULT_ACCELERATION * inertia
    least = float(_EFFORT_FLOOR * default.max())
    return default.clip(min=least)


def _defaults_used(file: ModelFile, chain: Chain, own: list[JointLimits]) -> str:
    names = file.joint_names(chain.joints)
    said = []
    if any(o.velocity is None and n not in file.velocities for n, o in zip(names, own)):
        said.append(f"velocity {DEFAULT_VELOCITY:g} rad/s")
    if any(o.acceleration is None for o in own):
        said.append(f"acceleration {DEFAULT_ACCELERATION:g} rad/s^2")
    if any(o.jerk is None for o in own):
        said.append(f"jerk {DEFAULT_JERK:g} rad/s^3")
    if any(o.effort is None and _stated_effort(file.model, j) is None for j, o in zip(chain.joints, own)):
        said.append(
            f"effort {_EFFORT_MARGIN:g} times what gravity takes and {DEFAULT_ACCELERATION:g} rad/s^2"
        )
    return f"by default: {', '.join(said)}" if said else ""

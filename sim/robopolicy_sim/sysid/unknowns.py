"""The vector that is fitted: which parameters it holds, in what units, and what is believed beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy_sim.simulation import CONTROL_RATE
from robopolicy_sim.sysid.parameters import DELAY, DELAY_MAX, KINDS, RobotParameters

#: Fitted unless asked otherwise. ``damping`` acts exactly as ``kv`` does, so only their sum can be known.
DEFAULT = ("kp", "kv", "armature", "frictionloss", DELAY)
#: Gains are factors of the model's, unknown by e^3; inertia is known from the maker within a fifth.
_FACTORS = {"kp": 3.0, "kv": 3.0, "armature": 0.2}
_FACTOR_RANGE = {"kp": (-4.6, 1.6), "kv": (-4.6, 1.6), "armature": (-1.5, 1.5)}
_EFFORT_SHARE = 0.01  # friction is counted in hundredths of a joint's effort limit
_FRICTION_BELIEF, _FRICTION_RANGE = 10.0, 40.0
_DAMPING_SHARE = 0.01  # damping is counted in hundredths of the model's kv
_DAMPING_BELIEF, _DAMPING_RANGE = 20.0, 400.0
_DELAY_BELIEF = 10.0  # [control ticks]


@dataclass(frozen=True)
class Unknown:
    """One element of the vector, x.

    Args:
        kind: of ``KINDS``, or "delay".
        joint: whose; empty for the delay.
        unit: of the value: a factor's base, or a step's size.
        factor: the value is unit * exp(x), else unit * x.
        start: of the fit, and what is believed. 0 is the model's value of a factor.
        belief: standard deviation of what is believed about x.
        lower, upper: bounds of x.
    """

    kind: str
    joint: str
    unit: float
    factor: bool
    start: float
    belief: float
    lower: float
    upper: float

    @property
    def name(self) -> str:
        return f"{self.kind} of {self.joint}" if self.joint else self.kind

    def value(self, x: float) -> float:
        """What x stands for, in SI units."""
        return float(self.unit * np.exp(x)) if self.factor else float(self.unit * x)

    def interval(self, x: float, deviation: float) -> tuple[float, float]:
        """95 % about x, in SI units; never below 0."""
        low, high = (self.value(x + sign * 1.96 * deviation) for sign in (-1.0, 1.0))
        return max(low, 0.0), high


def check_kinds(kinds: tuple[str, ...]) -> None:
    """ConfigError lists the known kinds unless ``kinds`` are some of them, each once."""
    known = (*KINDS, DELAY)
    if not kinds or len(set(kinds)) != len(kinds) or not set(kinds) <= set(known):
        raise ConfigError(f"parameters to identify are some of {', '.join(known)}; got {list(kinds)}")


def unknowns(
    nominal: RobotParameters, robot: Robot, kinds: tuple[str, ...], moving: list[bool]
) -> list[Unknown]:
    """What can be fitted: the kinds, of those joints (gripper last) that moved."""
    names = (*robot.joint_names, robot.gripper.name)
    efforts = (*(joint.effort for joint in robot.joints), robot.gripper.force)
    found = []
    for kind in kinds:
        if kind == DELAY:
            highest = DELAY_MAX * CONTROL_RATE
            found.append(
                Unknown(kind, "", 1.0 / CONTROL_RATE, False, 0.5, _DELAY_BELIEF, 0.0, min(highest, 30.0))
            )
            continue
        for name, effort, moved in zip(names, efforts, moving):
            # of a value that the model leaves at 0, no factor leads away
            if moved and (kind not in _FACTORS or nominal.joints[name][kind] > 0):
                found.append(_unknown(kind, name, effort, nominal))
    return found


def _unknown(kind: str, name: str, effort: float, nominal: RobotParameters) -> Unknown:
    values = nominal.joints[name]
    if kind in _FACTORS:
        return Unknown(kind, name, values[kind], True, 0.0, _FACTORS[kind], *_FACTOR_RANGE[kind])
    if kind == "frictionloss":
        unit, least, belief, most = _EFFORT_SHARE * effort, 0.5, _FRICTION_BELIEF, _FRICTION_RANGE
    else:
        unit = _DAMPING_SHARE * (values["kv"] or values["kp"] / 50)
        least, belief, most = 1.0, _DAMPING_BELIEF, _DAMPING_RANGE
    own = values[kind] / unit  # additions count from it, so nothing less can be asked of a simulation
    return Unknown(kind, name, unit, False, own + least, belief, own, own + most)


def parameters_at(x: Float, found: list[Unknown], robot: str) -> RobotParameters:
    """The parameters that a vector stands for; joints and kinds that are not in it keep the model's."""
    joints: dict[str, dict[str, float]] = {}
    delay = 0.0
    for unknown, element in zip(found, x.tolist()):
        if unknown.kind == DELAY:
            delay = unknown.value(element)
        else:
            joints.setdefault(unknown.joint, {})[unknown.kind] = unknown.value(element)
    return RobotParameters(robot, joints, delay)

"""What a robot's model leaves open: gains, damping, armature, dry friction and the delay of commands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from robopolicy.core.errors import ConfigError
from robopolicy_sim.robots import SimulatedRobot

#: Per joint, and their units.
KINDS: dict[str, str] = {
    "kp": "N m/rad",
    "kv": "N m s/rad",
    "damping": "N m s/rad",
    "armature": "kg m^2",
    "frictionloss": "N m",
}
#: The same of a gripper, which slides.
KINDS_OF_GRIPPER = {
    "kp": "N/m",
    "kv": "N s/m",
    "damping": "N s/m",
    "armature": "kg",
    "frictionloss": "N",
}
#: Those that randomisation multiplies; the others it adds to what the model has.
FACTORS = ("kp", "kv", "armature")
_OF_SERVOS = ("kp", "kv")
DELAY = "delay"
DELAY_MAX = 0.5  # [s] of command delay that is still a servo's and not a broken connection's


@dataclass(frozen=True)
class RobotParameters:
    """Values of a robot's model; what is not named is the model's own.

    Args:
        robot: whose joints these are.
        joints: joint, or the gripper's name, to kind (``KINDS``) to value. ``kp`` and ``kv`` are the position
            servo's, force = kp (command - position) - kv velocity; the gripper's act on its opening,
            its other values are of each finger; units in ``KINDS_OF_GRIPPER``.
        delay: between a command being sent and the servo using it [s].
    Raises:
        ConfigError: an unknown kind, or a value that is negative or not finite; names it.
    """

    robot: str
    joints: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    delay: float = 0.0

    def __post_init__(self) -> None:
        for joint, values in self.joints.items():
            for kind, value in values.items():
                if kind not in KINDS:
                    raise ConfigError(f"{joint}: unknown parameter {kind!r}; known: {', '.join(KINDS)}")
                if not (math.isfinite(value) and value >= 0):
                    raise ConfigError(f"{joint}: {kind} must be finite and >= 0, got {value}")
        if not 0 <= self.delay <= DELAY_MAX:
            raise ConfigError(f"delay must be within 0..{DELAY_MAX} s, got {self.delay}")


def conditions(
    parameters: RobotParameters, nominal: RobotParameters, arm: SimulatedRobot
) -> dict[str, float]:
    """The same as constants that every environment takes as ``randomisation`` or as a reset's ``conditions``.

    Args:
        nominal: what the model has, in all kinds: factors and additions count from it.
    """
    found: dict[str, float] = {}
    for name, values in parameters.joints.items():
        joints = arm.finger_joints if name == arm.robot.gripper.name else (name,)
        for kind, value in values.items():
            before = nominal.joints[name][kind]
            change = value / before if kind in FACTORS else value - before
            for target in (name,) if kind in _OF_SERVOS else joints:
                found[f"{kind}:{target}"] = change
    if parameters.delay:
        found["delay_actuation"] = parameters.delay
    return found

"""What can be randomised: the name, unit, sensible range and targets of each kind of parameter."""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy_sim.randomisation.distributions import Value

TEXTURES = ("own", "checker", "noise", "gradient")


@dataclass(frozen=True)
class Kind:
    """One thing that can differ between episodes.

    Args:
        over: what it belongs to ("body", "geom", "joint", ...); empty where there is only one of it.
        unit: of its values; "x" is a factor on the model's own value, "+UNIT" is added to it.
        nominal: the value that changes nothing.
        low, high: widest values that make physical sense.
        choices: the values, where they are names.
    """

    over: str
    unit: str
    nominal: Value
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def check(self, key: str, value: Value) -> None:
        """ConfigError, naming the valid values, unless ``value`` makes sense."""
        if self.choices:
            if value not in self.choices:
                raise UnknownNameError(f"value of {key}", str(value), self.choices)
        elif isinstance(value, str) or not math.isfinite(value) or not self.low <= value <= self.high:
            unit = self.unit.removeprefix("+").replace("x", "times the model's own")
            raise ConfigError(f"{key} must be within {self.low:g} to {self.high:g} {unit}, got {value!r}")


def _factor(over: str, low: float, high: float) -> Kind:
    return Kind(over, "x", 1.0, low, high)


def _added(over: str, unit: str, low: float, high: float) -> Kind:
    return Kind(over, f"+{unit}", 0.0, low, high)


#: Every kind by name. Several parameters on one target add up: factors multiply, the others are added.
KINDS: Mapping[str, Kind] = {
    # dynamics
    "mass": _factor("body", 0.01, 100.0),  # and inertia, so the body is as large as before
    "friction": _factor("geom", 0.01, 10.0),  # all three coefficients
    "damping": _added("joint", "N m s/rad", 0.0, 500.0),
    "frictionloss": _added("joint", "N m", 0.0, 50.0),
    "armature": _factor("joint", 0.1, 10.0),
    "kp": _factor("servo", 0.01, 5.0),
    "kv": _factor("servo", 0.01, 5.0),
    "gripper_force": _factor("", 0.01, 5.0),
    "gravity_compensation": _factor("link", 0.0, 2.0),
    "table_height": _added("", "m", -0.1, 0.1),
    "table_roll": _added("", "rad", -0.2, 0.2),
    "table_pitch": _added("", "rad", -0.2, 0.2),
    # between the command and the servos; the width of a dead band is from edge to edge
    "backlash": _added("servo", "rad", 0.0, 0.2),
    "noise_command": _added("servo", "rad", 0.0, 0.2),
    "delay_inference": _added("", "s", 0.0, 1.0),
    "delay_actuation": _added("", "s", 0.0, 1.0),
    "jitter_command": _added("", "s", 0.0, 0.5),  # standard deviation of the delay, anew each policy step
    # of what is observed: standard deviations, anew each observation
    "delay_observation": _added("", "s", 0.0, 1.0),
    "jitter_observation": _added("", "s", 0.0, 0.5),
    "noise_joint": _added("", "rad", 0.0, 0.5),
    "noise_gripper": _added("", "m", 0.0, 0.05),
    "noise_position": _added("", "m", 0.0, 0.2),
    "noise_rotation": _added("", "rad", 0.0, 1.0),
    "noise_image": _added("", "grey levels", 0.0, 100.0),
    # looks
    "light_brightness": _factor("light", 0.0, 5.0),
    "light_warmth": _added("light", "of red, less blue", -0.9, 0.9),
    "light_azimuth": _added("light", "rad", -math.pi, math.pi),
    "light_tilt": _added("light", "rad", -1.0, 1.0),
    "light_x": _added("light", "m", -3.0, 3.0),
    "light_y": _added("light", "m", -3.0, 3.0),
    "light_z": _added("light", "m", -3.0, 3.0),
    "ambient": _factor("", 0.0, 5.0),
    "hue": _added("material", "turns", -0.5, 0.5),
    "saturation": _factor("material", 0.0, 5.0),
    "brightness": _factor("material", 0.0, 5.0),
    "texture": Kind("material", "", "own", choices=TEXTURES),
    "texture_seed": _added("", "(a whole number)", 0, 2**31 - 1),
    "camera_x": _added("camera", "m", -0.5, 0.5),
    "camera_y": _added("camera", "m", -0.5, 0.5),
    "camera_z": _added("camera", "m", -0.5, 0.5),
    "camera_roll": _added("camera", "rad", -0.5, 0.5),
    "camera_pitch": _added("camera", "rad", -0.5, 0.5),
    "camera_yaw": _added("camera", "rad", -0.5, 0.5),
    "camera_fovy": _added("camera", "rad", -0.5, 0.5),
}


@functools.lru_cache(1024)
def parse_key(key: str) -> tuple[str, str]:
    """ "KIND" or "KIND:PATTERN" in two; UnknownNameError lists the kinds."""
    name, _, pattern = str(key).partition(":")
    if name not in KINDS:
        raise UnknownNameError("randomisation parameter", name, KINDS)
    if pattern and not KINDS[name].over:
        raise ConfigError(f"there is only one {name}: write {name!r}, not {key!r}")
    if str(key).endswith(":"):
        raise ConfigError(f"{key!r} names no {KINDS[name].over}; write {name!r} for the usual ones")
    return name, pattern


def matching(kind: str, pattern: str, names: Sequence[str]) -> list[int]:
    """Indices of the names that a shell pattern fits; UnknownNameError lists them when none does."""
    found = [i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise UnknownNameError(f"{KINDS[kind].over} of {kind}", pattern, [n for n in names if n])
    return found


def check_value(key: str, value: Any) -> Value:
    """The value, if it may be that of ``key``; ConfigError otherwise."""
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        raise ConfigError(f"{key} takes a number or a name, got {value!r}")
    KINDS[parse_key(key)[0]].check(key, value)
    return value

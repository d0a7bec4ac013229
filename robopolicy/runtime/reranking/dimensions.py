"""Which action dimensions a score judges, and what makes a radian comparable with a metre."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robopolicy import robots
from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy.core.specs import DELTAS, ActionPart, ActionSpec, Specs

Indices = NDArray[np.intp]


def arm_of(specs: Specs, robot: Robot | None) -> Robot | None:
    """The robot that was given, or the one whose file the specs name; None where neither is known."""
    if robot is None and specs.robot in robots.names():
        return robots.load(specs.robot)
    return robot


def judged(action: ActionSpec, names: tuple[str, ...]) -> Indices:
    """Indices of the named action dimensions, of all of them where none is named.

    Raises:
        UnknownNameError: lists the action's names.
    """
    for name in names:
        if name not in action.names:
            raise UnknownNameError("action dimension", name, action.names)
    return np.array([i for i, name in enumerate(action.names) if not names or name in names], dtype=np.intp)


def kinds(action: ActionSpec) -> tuple[str, ...]:
    """One per dimension: "absolute", "delta" (from the command before) or "relative" (to the observation)."""
    return tuple(_kind(part) for part in action.parts for _ in part.names)


def _kind(part: ActionPart) -> str:
    return "delta" if part.space in DELTAS else part.reference


def refuse_relative(action: ActionSpec, dims: Indices, score: str) -> None:
    """ConfigError for dimensions that count from the current observation: older ones counted from others."""
    kind = kinds(action)
    relative = [action.names[i] for i in dims if kind[i] == "relative"]
    if relative:
        raise ConfigError(
            f"{score} compares with older commands, but {relative} count from the current observation; leave "
            "them out by dimensions=..., or use an absolute action space"
        )


def ranges(action: ActionSpec, robot: Robot | None) -> Float:
    """(action_dim,) width of what can be commanded, in the action spec's units; NaN where it is not known.

    Joints and grippers by the robot's limits, tool positions by its workspace, rotation entries 2.
    """
    known: dict[tuple[str, str], float] = {}
    if robot is not None:
        width = robot.limits.upper - robot.limits.lower
        known = {("joint_position", name): float(w) for name, w in zip(robot.joint_names, width)}
        known["gripper_opening", robot.gripper.name] = float(width[-1])
    result = np.full(action.dim, np.nan)
    for part, at in action.slices():
        if part.space == "ee_pose":
            box = np.subtract(robot.workspace_upper, robot.workspace_lower) if robot else [np.nan] * 3
            result[at] = [*box, *(2.0,) * 6]
        elif part.reference == "absolute":
            result[at] = [known.get((part.space, name), np.nan) for name in part.names]
    return result


def scales(
    action: ActionSpec, dims: Indices, given: tuple[float, ...], robot: Robot | None, score: str
) -> tuple[Float, str]:
    """What differences are divided by, (len(dims),), and the unit of their square then.

    That is what was given; else 1 % of the ranges, where all are known; else 1, where all units are the same.

    Raises:
        ConfigError: another number of scales than of dimensions, or one that is not positive; or none given
            and units that cannot be compared.
    """
    if given:
        if len(given) != len(dims) or not all(0 < s < math.inf for s in given):
            names = [action.names[i] for i in dims]
            raise ConfigError(f"{score} needs one positive scale for each of {names}, got {list(given)}")
        return np.array(given), "1"
    widths: Float = ranges(action, robot)[dims]
    if np.isfinite(widths).all():
        return widths / 100, "%^2"
    units = [action.units[i] for i in dims]
    if len(set(units)) == 1:
        return np.ones(len(dims)), "1" if units[0] == "1" else f"{units[0]}^2"
    raise ConfigError(
        f"{score} cannot compare {sorted(set(units))} without a robot that knows {list(action.names)}: give "
        "scale=..., one number for each dimension, or judge fewer by dimensions=..."
    )

"""Logged motion, ready to be predicted: commands at control rate, and what was measured when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopolicy.core.errors import NonFiniteValueError, ShapeError
from robopolicy.core.geometry import Float
from robopolicy.core.robot import Robot
from robopolicy_sim.simulation import CONTROL_RATE
from robopolicy_sim.sysid.errors import IdentificationError

SHORTEST = 1.0  # [s] of motion below which a log says nothing
MOVED = 0.02  # [rad] of travel below which a joint counts as standing still
_MOVED_GRIPPER = 0.005  # [m]
_BEYOND = 0.2  # [rad] beyond a limit that no calibration error explains


@dataclass(frozen=True)
class Log:
    """One episode.

    Args:
        name: for messages.
        commands: (ticks, num_joints + 1) in force during each control tick [rad, m].
        times: (samples,) of the measurements since the first tick began [s], increasing from 0.
        measured: (samples, num_joints + 1) [rad, m].
        velocity: (num_joints,) at the start [rad/s].
        gripper: whether the gripper moved freely, so that its opening tells about its servo.
    """

    name: str
    commands: Float
    times: Float
    measured: Float
    velocity: Float
    gripper: bool

    @property
    def seconds(self) -> float:
        """Length [s]."""
        return float(self.times[-1])


def check(log: Log, robot: Robot) -> None:
    """Refuse a log that cannot be used.

    Raises:
        ShapeError, NonFiniteValueError, IdentificationError: what and where.
    """
    dim = len(robot.joints) + 1
    for what, array in (("commands", log.commands), ("measured", log.measured)):
        if array.ndim != 2 or array.shape[1] != dim:
            raise ShapeError(f"{log.name}, {what}: expected (count, {dim}), got {array.shape}")
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if bad.size:
            raise NonFiniteValueError(f"{log.name}, {what}, sample {bad[0]}: {array[bad[0]]}")
    if len(log.times) < 2 or log.seconds < SHORTEST:
        raise IdentificationError(
            f"{log.name}: {len(log.times)} samples over {log.times[-1] - log.times[0]:.2f} s are too short; "
            f"at least {SHORTEST} s are needed"
        )
    limits = robot.limits
    for what, array in (("commands", log.commands), ("measured", log.measured)):
        over = np.maximum(array - limits.upper, limits.lower - array)[:, :-1].max(axis=0)
        if (over > _BEYOND).any():
            joint = int(np.argmax(over))
            raise IdentificationError(
                f"{log.name}, {what}: {robot.joint_names[joint]} reaches {array[:, joint].min():.2f}.."
                f"{array[:, joint].max():.2f} rad, its limits are {limits.lower[joint]:.2f}.."
                f"{limits.upper[joint]:.2f}; degrees, or joints in another order?"
            )


def moving(logs: list[Log], robot: Robot) -> list[bool]:
    """Which of the commanded dimensions, gripper last, moved enough in any log to tell anything.

    Raises:
        IdentificationError: none did.
    """
    travel = np.max([np.ptp(log.measured, axis=0) for log in logs], axis=0)
    moved = [bool(t > MOVED) for t in travel[:-1]]
    free = [np.ptp(log.measured[:, -1]) for log in logs if log.gripper]
    if not any(moved):
        raise IdentificationError(
            f"no joint of {robot.name} moves more than {MOVED} rad in {len(logs)} episodes: "
            f"{[round(float(t), 4) for t in travel[:-1]]}"
        )
    return [*moved, bool(free and max(free) > _MOVED_GRIPPER)]


def ticks_of(seconds: float) -> int:
    """Control ticks that cover a time."""
    return int(np.ceil(seconds * CONTROL_RATE - 1e-6))

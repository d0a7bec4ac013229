"""Smooth tool motions at policy rate: time-optimal, jerk-limited, towards a target that may change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from ruckig import InputParameter, Result, Ruckig, Trajectory

from robopolicy.core.geometry import Float, matrix_from_quat_wxyz, quat_wxyz_from_matrix, transform


@dataclass(frozen=True)
class MotionLimits:
    """Per axis, of the tool: [m/s], [m/s^2], [m/s^3] and [rad/s], [rad/s^2], [rad/s^3]."""

    velocity: float = 0.36
    acceleration: float = 1.0
    jerk: float = 5.0
    angular_velocity: float = 1.0
    angular_acceleration: float = 2.0
    angular_jerk: float = 10.0


#: Tool pointing straight down, its fingers along the base's y axis.
ROTATION_DOWN: Float = np.diag([1.0, -1.0, -1.0])


def rotation_vector(rotation: NDArray[Any]) -> Float:
    """(3, 3) -> (3,) axis times angle [rad], angle at most pi."""
    vector = np.empty(3)
    mujoco.mju_quat2Vel(vector, quat_wxyz_from_matrix(rotation), 1.0)
    return vector


def rotation_from_vector(vector: NDArray[Any]) -> Float:
    """(3,) axis times angle [rad] -> (3, 3)."""
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 1e-12 else np.array([1.0, 0.0, 0.0])
    return matrix_from_quat_wxyz(np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)]))


class ToolMotion:
    """A moving tool pose: where it is, how fast, and where it is going.

    The next waypoint depends on pose, velocity and target alone, not on how long the motion has lasted, so a
    policy that sees two observations can learn it. Rotations are vectors relative to ``ROTATION_DOWN``, which
    is free of singularities for anything a tabletop task asks.

    Args:
        period: between waypoints [s].
        limits: of the tool.
    """

    def __init__(self, period: float, limits: MotionLimits | None = None) -> None:
        limits = limits or MotionLimits()
        self._period = period
        self._planner = Ruckig(6)
        self._trajectory = Trajectory(6)
        self._input = InputParameter(6)
        self._input.max_velocity = [limits.velocity] * 3 + [limits.angular_velocity] * 3
        self._input.max_acceleration = [limits.acceleration] * 3 + [limits.angular_acceleration] * 3
        self._input.max_jerk = [limits.jerk] * 3 + [limits.angular_jerk] * 3
        self._input.target_velocity = [0.0] * 6
        self._input.target_acceleration = [0.0] * 6

    def reset(self, transform_tcp_to_base: NDArray[Any]) -> None:
        """Stand still at a (4, 4) pose."""
        self._input.current_position = _rounded(_coordinates(transform_tcp_to_base))
        self._input.current_velocity = [0.0] * 6
        self._input.current_acceleration = [0.0] * 6

    def pose(self) -> Float:
        """(4, 4) pose of the current waypoint."""
        position = np.array(self._input.current_position)
        return transform(ROTATION_DOWN @ rotation_from_vector(position[3:]), position[:3])

    def advance(self, transform_target_to_base: NDArray[Any]) -> Float:
        """The (4, 4) waypoint one period later, on the way to a (4, 4) target."""
        self._input.target_position = _rounded(_coordinates(transform_target_to_base))
        result = self._planner.calculate(self._input, self._trajectory)
        assert result in (Result.Working, Result.Finished), result
        position, velocity, acceleration = self._trajectory.at_time(self._period)
        self._input.current_position = _rounded(position)
        self._input.current_velocity = _rounded(velocity)
        self._input.current_acceleration = _rounded(acceleration)
        return self.pose()


def _coordinates(pose: NDArray[Any]) -> Float:
    return np.concatenate([pose[:3, 3], rotation_vector(ROTATION_DOWN.T @ pose[:3, :3])])


def _rounded(values: Iterable[float]) -> list[float]:
    """To 1e-9: ruckig 0.19 fails to synchronise axes that are a rounding error away from their target."""
    return [round(float(value), 9) for value in values]

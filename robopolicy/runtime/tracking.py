"""Follows a target that cannot be sent as it is, as fast as velocity, acceleration and jerk allow."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits

_CATCHABLE = 0.95  # of the velocity limit


class JerkLimitedTracker:
    """One-tick steps of ruckig's time-optimal state-to-state motion, each dimension on its own.

    The motion is planned in the frame that moves with the target, where the target rests: aiming at where
    a moving target is now would only ever approach it.

    Ruckig's community edition sends intermediate waypoints to a cloud service; none are used here.
    Source: Berscheid and Kroeger 2021, "Jerk-limited Real-time Trajectory Generation".
    """

    def __init__(self, limits: Limits, dt: float) -> None:
        self._ruckig: Any = importlib.import_module("ruckig")  # here: importing the runtime stays fast
        dim = len(limits.lower)
        self._limits, self._dt = limits, dt
        self._generator = self._ruckig.Ruckig(dim, dt)
        self._input = self._ruckig.InputParameter(dim)
        self._output = self._ruckig.OutputParameter(dim)
        self._input.max_acceleration = limits.acceleration.tolist()
        self._input.max_jerk = limits.jerk.tolist()
        self._input.synchronization = self._ruckig.Synchronization.No
        self.reset(np.zeros(dim), np.zeros(dim))

    def reset(self, velocity: Float, acceleration: Float) -> None:
        self._velocity, self._acceleration = velocity.copy(), acceleration.copy()

    def step(self, position: Float, target: Float, target_velocity: Float) -> Float | None:
        """Position at the end of this tick, (dim,), or None when no motion was found.

        Args:
            position: at its beginning.
            target: where the target will be at its end.
            target_velocity: of the target; faster ones than can be caught count as just slower.
        """
        limit = self._limits.velocity
        frame = np.clip(target_velocity, -_CATCHABLE * limit, _CATCHABLE * limit)
        self._input.current_position = (position - (target - frame * self._dt)).tolist()
        self._input.current_velocity = (self._velocity - frame).tolist()
        self._input.current_acceleration = self._acceleration.tolist()
        self._input.max_velocity = (limit - frame).tolist()
        self._input.min_velocity = (-limit - frame).tolist()
        if self._generator.update(self._input, self._output) < 0:
            return None
        self._velocity = np.array(self._output.new_velocity) + frame
        self._acceleration = np.array(self._output.new_acceleration)
        return np.array(self._output.new_position) + target

    def follow(self, sent: NDArray[np.bool_], velocity: Float, acceleration: Float) -> None:
        """Where something else than the step was sent, go on from its finite differences.

        Those lie half a tick back; with steady acceleration the velocity at the tick is half a
        tick's acceleration further.
        """
        limits = self._limits
        ahead = np.clip(velocity + acceleration * self._dt / 2, -limits.velocity, limits.velocity)
        self._velocity = np.where(sent, ahead, self._velocity)
        self._acceleration = np.where(
            sent, np.clip(acceleration, -limits.acceleration, limits.acceleration), self._acceleration
        )

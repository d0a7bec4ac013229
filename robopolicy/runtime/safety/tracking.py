"""Follows a target that cannot be sent as it is, as fast as velocity, acceleration and jerk allow."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits

_CATCHABLE = 0.95  # of the velocity limit
#: Of the jerk limit, for a second try: ruckig 0.19 finds no motion over a distance where two kinds of profile
#: meet within rounding, 2 A^3 / J^2 from rest, say.
_OTHER = 0.9
_USED = 0.97  # of acceleration and jerk: what is left lets every step end in a stop one tick sooner


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
        self._velocity_limit, self._dt = limits.velocity, dt
        self._acceleration_limit = _USED * limits.acceleration
        self._generator = self._ruckig.Ruckig(dim, dt)
        self._input = self._ruckig.InputParameter(dim)
        self._output = self._ruckig.OutputParameter(dim)
        self._input.max_acceleration = self._acceleration_limit.tolist()
        self._jerk = _USED * limits.jerk
        self._input.synchronization = self._ruckig.Synchronization.No
        self._velocity = self._acceleration = np.zeros(dim)
        self._next = (self._velocity, self._acceleration)

    def go_on(self, off_track: NDArray[np.bool_], velocity: Float, acceleration: Float) -> None:
        """Where the last step was sent go on from its end, elsewhere from the differences of what was.

        Those lie half a tick back; with steady acceleration the velocity at the tick is half a
        tick's acceleration further.

        Args:
            off_track: (dim,) where something else than the last step was sent.
            velocity, acceleration: (dim,) finite differences of what was sent, per second.
        """
        limit, most = self._velocity_limit, self._acceleration_limit
        ahead = np.minimum(np.maximum(velocity + acceleration * self._dt / 2, -limit), limit)
        self._velocity = np.where(off_track, ahead, self._next[0])
        held = np.minimum(np.maximum(acceleration, -most), most)
        self._acceleration = np.where(off_track, held, self._next[1])

    def step(
        self, position: Float, target: Float, target_velocity: Float, cap: Float | None = None
    ) -> Float | None:
        """Position at the end of this tick, (dim,), or None when no motion was found.

        Args:
            position: at its beginning.
            target: where the target will be at its end.
            target_velocity: of the target; faster ones than can be caught count as just slower.
            cap: (dim,) speeds to keep to instead of the limits; a faster dimension slows down to it.
        """
        limit = self._velocity_limit if cap is None else cap
        frame = np.minimum(np.maximum(target_velocity, -_CATCHABLE * limit), _CATCHABLE * limit)
        self._input.current_position = (position - (target - frame * self._dt)).tolist()
        self._input.current_velocity = (self._velocity - frame).tolist()
        self._input.current_acceleration = self._acceleration.tolist()
        self._input.max_velocity = (limit - frame).tolist()
        self._input.min_velocity = (-limit - frame).tolist()
        if not self._plan(self._jerk) and not self._plan(_OTHER * self._jerk):
            return None
        self._next = (np.array(self._output.new_velocity) + frame, np.array(self._output.new_acceleration))
        return np.array(self._output.new_position) + target

    def _plan(self, jerk: Float) -> bool:
        self._input.max_jerk = jerk.tolist()
        try:
            return int(self._generator.update(self._input, self._output)) >= 0
        except (self._ruckig.RuckigError, ValueError):  # ValueError: a failure its binding has no name for
            return False

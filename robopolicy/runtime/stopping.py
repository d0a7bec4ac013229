"""The discrete-time set of commands after which a dimension can still stop before its limit.

Commands are sent every dt; velocity and acceleration are the finite differences of what was sent. With
A = acceleration limit * dt, braking from velocity v >= 0 sends v - A, v - 2A, ... 0. The distance covered
by v itself and that braking is

    distance(v) = dt * sum_{j >= 0} max(v - j A, 0) = dt * ((n + 1) v - A n (n + 1) / 2),  n = floor(v / A),

increasing and piecewise linear, so it has a closed inverse. Sending any velocity in
[lowest, highest] below keeps the interval of the next tick non-empty, by induction for ever: braking is
always in it.
"""

from __future__ import annotations

import numpy as np

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits


def stopping_distance(speed: Float, acceleration: Float, dt: float) -> Float:
    """Distance [rad or m] sent from now on when the next velocity is ``speed`` >= 0 and then it brakes."""
    step = acceleration * dt
    n = np.floor(speed / step)
    distance: Float = dt * ((n + 1) * speed - step * n * (n + 1) / 2)
    return distance


def highest_speed(room: Float, acceleration: Float, dt: float) -> Float:
    """Inverse of ``stopping_distance``: the fastest next velocity that stops within ``room``.

    Args:
        room: (dim,) distance to the limit; negative (outside) counts as none.
    """
    step = acceleration * dt
    room = np.maximum(room, 0.0)
    n = np.floor((np.sqrt(1 + 8 * room / (step * dt)) - 1) / 2)
    speed: Float = (room / dt + step * n * (n + 1) / 2) / (n + 1)
    return speed


def velocity_interval(position: Float, velocity: Float, limits: Limits, dt: float) -> tuple[Float, Float]:
    """Lowest and highest admissible next velocity, each (dim,).

    Outside the position limits only motion inwards is admissible. Where velocity and acceleration
    cannot both be kept, acceleration is: that happens from inadmissible states only.
    """
    highest = np.minimum(limits.velocity, highest_speed(limits.upper - position, limits.acceleration, dt))
    lowest = np.maximum(-limits.velocity, -highest_speed(position - limits.lower, limits.acceleration, dt))
    reach = limits.acceleration * dt
    return (
        np.clip(lowest, velocity - reach, velocity + reach),
        np.clip(highest, velocity - reach, velocity + reach),
    )

"""Piecewise quintics through timed waypoints: position, velocity and acceleration are continuous."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float

#: Coefficients c of position(s) = sum c_i s^i on s in [0, 1] from the six end conditions
#: (p0, v0, a0, p1, v1, a1), with velocities and accelerations scaled to the segment's duration.
_HERMITE = np.array(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.5, 0.0, 0.0, 0.0],
        [-10.0, -6.0, -1.5, 10.0, -4.0, 0.5],
        [15.0, 8.0, 1.5, -15.0, 7.0, -1.0],
        [-6.0, -3.0, -0.5, 6.0, -3.0, 0.5],
    ]
)
_POWERS = np.arange(6)


@dataclass(frozen=True)
class Knots:
    """Where a path must be, one row per instant.

    Args:
        time_ns: (n,) strictly increasing.
        position, velocity, acceleration: (n, dim).
    """

    time_ns: tuple[int, ...]
    position: Float
    velocity: Float
    acceleration: Float


class Path:
    """Evaluates the quintics between knots; before the first and after the last it holds position."""

    def __init__(self, knots: Knots) -> None:
        self._times = list(knots.time_ns)
        self._last = knots.position[-1].copy()
        self._first = knots.position[0].copy()
        seconds: Float = np.diff(np.array(knots.time_ns, dtype=np.int64)).astype(np.float64) * 1e-9
        self._seconds = seconds.tolist()
        h = seconds[:, None]
        p, v, a = knots.position, knots.velocity, knots.acceleration
        ends = np.stack([p[:-1], v[:-1] * h, a[:-1] * h**2, p[1:], v[1:] * h, a[1:] * h**2], axis=1)
        self._coefficients = np.einsum("ij,njd->nid", _HERMITE, ends)

    @property
    def end_ns(self) -> int:
        return self._times[-1]

    def state(self, time_ns: int) -> tuple[Float, Float, Float]:
        """Position, velocity and acceleration, each (dim,), at an instant."""
        if time_ns >= self._times[-1] or time_ns < self._times[0]:
            held = self._last if time_ns >= self._times[-1] else self._first
            return held.copy(), np.zeros_like(held), np.zeros_like(held)
        segment = bisect_right(self._times, time_ns) - 1
        duration = self._seconds[segment]
        s = (time_ns - self._times[segment]) * 1e-9 / duration
        powers = s**_POWERS
        basis = np.zeros((3, 6))
        basis[0] = powers
        basis[1, 1:] = _POWERS[1:] * powers[:-1] / duration
        basis[2, 2:] = _POWERS[2:] * _POWERS[1:-1] * powers[:-2] / duration**2
        position, velocity, acceleration = basis @ self._coefficients[segment]
        return position, velocity, acceleration


def hold(position: Float, time_ns: int) -> Path:
    """A path that stays where it is."""
    still = np.zeros((1, len(position)))
    return Path(Knots((time_ns,), np.asarray(position, dtype=np.float64)[None], still, still))


def slopes(waypoints: Float, period: float, monotone: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Velocity and acceleration at evenly spaced waypoints, from their differences.

    Free dimensions take central differences (Catmull-Rom) and second differences. Monotone ones, a
    gripper's say, take the harmonic mean of the neighbouring slopes where they agree in sign, else
    zero (Fritsch and Butland 1984), no acceleration, and rest at the ends. With those, a quintic's
    velocity is at least its value at v0 = v1 = 2 slopes, slope * (2 - 30 s^2 (1 - s)^2) > 0: it never
    passes a waypoint's value and comes back.

    Args:
        waypoints: (n, dim).
        period: between them [s].
        monotone: (dim,).
    Returns:
        (n, dim) velocities and (n, dim) accelerations.
    """
    velocity, acceleration = np.zeros_like(waypoints), np.zeros_like(waypoints)
    if len(waypoints) < 2:
        return velocity, acceleration
    steps = np.diff(waypoints, axis=0) / period
    velocity[0], velocity[-1] = steps[0], steps[-1]
    velocity[1:-1] = (steps[1:] + steps[:-1]) / 2
    acceleration[1:-1] = np.diff(steps, axis=0) / period
    before, after = steps[:-1, monotone], steps[1:, monotone]
    same_way = before * after > 0
    total = np.where(same_way, before + after, 1.0)
    gentle = np.zeros((len(waypoints), before.shape[1]))
    gentle[1:-1] = np.where(same_way, 2 * before * after / total, 0.0)
    velocity[:, monotone], acceleration[:, monotone] = gentle, 0.0
    return velocity, acceleration

"""Paths at control rate: uniform cubic B-splines with the waypoints as control points, and cross-fades.

A policy's waypoints carry noise, and a curve through all of them has to swing to meet it. A B-spline
passes by them instead: in between, position, velocity and acceleration are averages with positive weights
of neighbouring waypoints, first and second differences, and jerk is their third difference (de Boor 1978,
A Practical Guide to Splines, ch. X and XI). So it never asks for more than the waypoints themselves do,
never overshoots them, and stays monotone where they are. The price: at waypoint k it is off by a sixth of
the second difference, (w[k-1] - 2 w[k] + w[k+1]) / 6.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robopolicy.core.geometry import Float

#: Position on a segment from waypoint 1 to waypoint 2 of four: [1, s, s^2, s^3] @ _BASIS @ waypoints.
_BASIS = np.array(
    [[1.0, 4.0, 1.0, 0.0], [-3.0, 0.0, 3.0, 0.0], [3.0, -6.0, 3.0, 0.0], [-1.0, 3.0, -3.0, 1.0]]
)
_BASIS /= 6.0

State = tuple[Float, Float, Float]


class Path(Protocol):
    """Where to be, at any instant; position, velocity and acceleration are continuous throughout."""

    def state(self, time_ns: int) -> State:
        """Position, velocity and acceleration, each (dim,)."""
        ...

    def after(self, time_ns: int) -> Path:
        """The same path for whoever asks for that instant and later ones only; it may remember less."""
        ...


class Hold:
    """Stays where it is, (dim,)."""

    def __init__(self, position: Float) -> None:
        self._position = position.astype(np.float64)

    def state(self, time_ns: int) -> State:
        still = np.zeros_like(self._position)
        return self._position.copy(), still, still.copy()

    def after(self, time_ns: int) -> Hold:
        return self


class Spline:
    """Uniform cubic B-spline that ends at rest on the last waypoint; before its first segment, a period
    before the first waypoint, it holds.

    Args:
        points: (n >= 1, dim) waypoints.
        first_ns: instant of the first one.
        period_ns: between them.
        lead: (2, dim) waypoints before the first; None continues the first step backwards.
    """

    def __init__(self, points: Float, first_ns: int, period_ns: int, lead: Float | None = None) -> None:
        if lead is None:
            step = points[1] - points[0] if len(points) > 1 else np.zeros(points.shape[1])
            lead = points[0] - np.array([[2.0], [1.0]]) * step
        padded = np.vstack([lead, points, points[-1], points[-1]])
        windows = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
        self._coefficients = np.einsum("ij,njd->nid", _BASIS, windows)
        self._begin_ns, self._period_ns = first_ns - period_ns, period_ns
        self._last = points[-1].copy()

    @property
    def rest_ns(self) -> int:
        """From when on it does not move."""
        return self._begin_ns + len(self._coefficients) * self._period_ns

    def state(self, time_ns: int) -> State:
        segment, rest = divmod(time_ns - self._begin_ns, self._period_ns)
        if segment >= len(self._coefficients):
            still = np.zeros_like(self._last)
            return self._last.copy(), still, still.copy()
        if segment < 0:  # nothing is known of it, and the first cubic would lead anywhere
            first = self._coefficients[0, 0]
            return first.copy(), np.zeros_like(first), np.zeros_like(first)
        s, period = rest / self._period_ns, self._period_ns * 1e-9
        c = self._coefficients[segment]
        return (
            c[0] + s * (c[1] + s * (c[2] + s * c[3])),
            (c[1] + s * (2 * c[2] + 3 * s * c[3])) / period,
            (2 * c[2] + 6 * s * c[3]) / period**2,
        )

    def after(self, time_ns: int) -> Spline:
        return self


class CrossFade:
    """From one path to another: (1 - b) old + b new with b = 10 t^3 - 15 t^4 + 6 t^5, t from 0 to 1.

    The first two derivatives of b vanish at both ends, so it leaves the old path and enters the new one
    without a step in position, velocity or acceleration; in between it lies between the two.

    Args:
        old, new: both are asked for instants within the fade.
        start_ns, duration_ns: of the fade.
    """

    def __init__(self, old: Path, new: Path, start_ns: int, duration_ns: int) -> None:
        self._old, self._new = old.after(start_ns), new
        self._start_ns, self._duration_ns = start_ns, duration_ns

    def state(self, time_ns: int) -> State:
        t = (time_ns - self._start_ns) / self._duration_ns
        if t <= 0.0:
            return self._old.state(time_ns)
        if t >= 1.0:
            return self._new.state(time_ns)
        duration = self._duration_ns * 1e-9
        b0 = t**3 * (10 - 15 * t + 6 * t**2)
        b1 = 30 * t**2 * (1 - t) ** 2 / duration
        b2 = 60 * t * (1 - t) * (1 - 2 * t) / duration**2
        p, v, a = self._old.state(time_ns)
        gap_p, gap_v, gap_a = (new - old for new, old in zip(self._new.state(time_ns), (p, v, a)))
        return (
            p + b0 * gap_p,
            v + b0 * gap_v + b1 * gap_p,
            a + b0 * gap_a + 2 * b1 * gap_v + b2 * gap_p,
        )

    def after(self, time_ns: int) -> Path:
        if time_ns >= self._start_ns + self._duration_ns:
            return self._new.after(time_ns)
        self._old = self._old.after(time_ns)  # else fades that overlap would remember each other for ever
        return self


def fade_time(gap: Float, gap_velocity: Float, acceleration: Float) -> float:
    """Duration [s] of a fade that adds no more than an acceleration.

    For two paths that are ``gap`` apart and part at a steady ``gap_velocity`` the fade adds b'' gap + (2 b' +
    t b'') gap_velocity, at most 5.78 gap / T^2 + 4.63 gap_velocity / T over a duration T.

    Args:
        gap, gap_velocity, acceleration: (dim,).
    """
    if not len(gap):
        return 0.0
    steady, apart = 4.63 * np.abs(gap_velocity), 5.78 * np.abs(gap)
    return float(np.max((steady + np.sqrt(steady**2 + 4 * acceleration * apart)) / (2 * acceleration)))

"""The quickest stop of sent commands, in closed form, each dimension on its own.

Commands are sent every dt; velocity, acceleration and jerk are the finite differences of what was sent. Here
all is counted in ticks: v = p_k - p_{k-1}, a = v_k - v_{k-1}, and accelerations in units of the jerk limit,
so that a may change by 1 a tick and stay within beta = acceleration limit / jerk limit. A stop of n ticks
chooses a_1 .. a_n with a_n = 0 and sum a_i = -v; after it the arm rests. Turn the sign so that v and what a
adds while it is only brought to zero are together >= 0. Then what n ticks can take off at most is the sum of

    L_i(n) = max(-beta, a - i, -(n - i))        down, along the limit, and back up to zero,

piecewise linear, so that its sums are polynomials of the two ticks where the pieces meet. The quickest stop
has the smallest n whose sum reaches -v; the mixture of L(n) and L(n - 1) that gives -v exactly is admissible
because the limits are convex. At the smallest n of all, ceil|a|, the plain ramp to zero takes the place of
L(n - 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits

_GUESSES = np.array([-1.0, 0.0, 1.0])  # the smallest n is the second or third; the mixture needs one before


@dataclass(frozen=True)
class TickLimits:
    """Limits in units of one tick, arrays of shape (dim,): beta is the acceleration limit in jerk limits."""

    velocity: Float
    acceleration: Float
    jerk: Float
    beta: Float

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of its arrays."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def of(cls, limits: Limits, dt: float) -> TickLimits:
        """From limits per second, for commands every ``dt`` [s]."""
        beta: Float = limits.acceleration / (limits.jerk * dt)
        return cls(limits.velocity * dt, limits.acceleration * dt**2, limits.jerk * dt**3, beta)


class Extent(NamedTuple):
    """What a stop does, arrays (..., dim).

    Args:
        lowest, highest: how far it goes from where it starts, both ways [rad, m].
        fastest: the greatest speed in it and before it [rad or m a tick].
    """

    lowest: Float
    highest: Float
    fastest: Float


class Stop:
    """Stops of every dimension, or of several candidates of them.

    Args:
        table: (6, ..., dim), of each dimension: the sign, -1 where the stop pushes upwards; the acceleration
            it starts from, sign turned, in jerk limits a tick; its ticks n; the share of L(n) in it; whether
            the rest is the ramp to zero, not L(n - 1); how many of its ticks have been sent.
    """

    def __init__(self, table: Float) -> None:
        self._table = table

    @property
    def ticks(self) -> Float:
        """(..., dim) its whole length n."""
        ticks: Float = self._table[2]
        return ticks

    @property
    def left(self) -> Float:
        """(..., dim) ticks still to be sent."""
        left: Float = np.maximum(self._table[2] - self._table[5], 0.0)
        return left

    def row(self, index: NDArray[np.intp]) -> Stop:
        """Of stacked candidates, (candidates, dim), one for each dimension by its index, (dim,)."""
        return Stop(self._table[:, index, np.arange(len(index))])

    def older(self) -> Stop:
        """The same after its next tick was sent."""
        table = self._table.copy()
        table[5] += 1.0
        return Stop(table)

    def merged(self, where: NDArray[np.bool_], other: Stop) -> Stop:
        """The other's where told, (dim,), its own elsewhere."""
        return Stop(np.where(where, other._table, self._table))

    def acceleration(self, tick: Float, limits: TickLimits) -> Float:
        """Of its tick number ``tick`` >= 1, counted from its start [rad or m a tick^2].

        Args:
            tick: (..., dim) or broadcastable to it.
        """
        sign, start, ticks, mix, ramps, _ = self._table
        down, up = np.maximum(-limits.beta, start - tick), tick - ticks
        full = np.maximum(down, np.minimum(up, 0.0))
        ramp = np.copysign(np.maximum(np.abs(start) - tick, 0.0), start)
        other = np.where(ramps > 0.0, ramp, np.maximum(down, np.minimum(up + 1.0, 0.0)))
        result: Float = sign * limits.jerk * (other + mix * (full - other))
        return result

    def next_velocity(self, velocity: Float, limits: TickLimits) -> Float:
        """(dim,) of the next command, from (dim,) of the last [rad or m a tick]; exactly zero at the end."""
        tick = self._table[5] + 1.0
        moving = tick < self._table[2] - 0.5
        result: Float = np.where(moving, velocity + self.acceleration(tick, limits), 0.0)
        return result

    def path(self, position: Float, velocity: Float, limits: TickLimits) -> Float:
        """The commands still to come, (ticks, dim), the last at rest; none at rest already.

        Args:
            position, velocity: (dim,) of the command before them, velocity a tick.
        """
        ticks = int(np.max(self.left, initial=0.0))
        tick = self._table[5] + np.arange(1.0, ticks + 1.0)[:, None]
        velocities = np.cumsum(self.acceleration(tick, limits), axis=0) + velocity
        velocities[tick > self.ticks - 0.5] = 0.0
        result: Float = np.cumsum(velocities, axis=0) + position
        return result


def plan_stop(velocity: Float, acceleration: Float, limits: TickLimits) -> tuple[Stop, Extent]:
    """The quickest stop of each dimension, and what it does.

    Args:
        velocity, acceleration: (..., dim) in units of one tick, of the last command; within the limits.
    """
    a, v, beta = acceleration / limits.jerk, velocity / limits.jerk, limits.beta
    size = np.abs(a)
    whole = np.floor(size)
    ramp = np.copysign(whole * (size - 0.5 * (whole + 1.0)), a)  # what the plain ramp to zero adds to v
    sign = np.copysign(1.0, v + ramp)
    a, v, ramp = a * sign, v * sign, ramp * sign
    shortest = np.ceil(size)
    n, taken_off, moment = _smallest(a, v, beta, shortest)
    ramps = n <= shortest
    ramp_moment = np.copysign(whole * (whole + 1.0) * (size / 2.0 - (2.0 * whole + 1.0) / 6.0), a)
    before, other = np.where(ramps, -ramp, taken_off[0]), np.where(ramps, ramp_moment, moment[0])
    mix = (v - before) / np.maximum(taken_off[1] - before, 1e-300)
    mix = np.minimum(np.maximum(mix, 0.0), 1.0)
    end = -v - other - mix * (moment[1] - other)
    low, high = np.minimum(_dip(a, v), end), np.maximum(end, 0.0)
    low = np.minimum(low, 0.0)
    up, jerk = sign > 0.0, limits.jerk
    stop = Stop(np.array([sign, a, n, mix, ramps, np.zeros_like(n)]))
    return stop, Extent(
        lowest=jerk * np.where(up, low, -high),
        highest=jerk * np.where(up, high, -low),
        fastest=jerk * np.maximum(np.abs(v), v + ramp),
    )


def _smallest(a: Float, v: Float, beta: Float, shortest: Float) -> tuple[Float, Float, Float]:
    """The smallest n that takes v off; minus the sum of L_i(n - 1) and of L_i(n), and the sums of i L_i."""
    depth_squared = np.maximum(v + 0.5 * a * (a - 1.0), 0.0)  # of a stop that never reaches the limit
    # Where a limit is reached between two ticks, the sampled corner lacks part * (1 - part) / 2; a stop that
    # turns between two ticks lacks at most a quarter, which costs at most one tick more.
    limited = a + beta + (depth_squared + _corner(a + beta) + _corner(beta)) / beta
    least = np.where(depth_squared <= beta * beta, a + 2.0 * np.sqrt(depth_squared), limited)
    n = np.maximum(np.ceil(least - 1e-9) + _GUESSES.reshape(-1, *(1,) * a.ndim), shortest)
    down = np.minimum(np.floor(a + beta), np.floor((a + n) / 2.0))
    down = np.maximum(down, 0.0)  # last tick of the way down
    flat = np.maximum(np.ceil(n - beta), np.floor((a + n) / 2.0) + 1.0) - 1.0  # last before the way up
    up = n - flat - 1.0
    sum_down, sum_up = down * (down + 1.0), up * (up + 1.0)
    taken_off = 0.5 * (sum_down + sum_up) - a * down + beta * (flat - down)
    moment = 0.5 * (a * sum_down - beta * (flat * (flat + 1.0) - sum_down) - n * sum_up)
    moment += (sum_up * (2.0 * up + 1.0) - sum_down * (2.0 * down + 1.0)) / 6.0
    enough = taken_off[1] >= v - 1e-9 * (1.0 + v)
    found = [np.where(enough, x[:2], x[1:]) for x in (taken_off, moment)]
    return np.where(enough, n[1], n[2]), found[0], found[1]


def _corner(tick: Float) -> Float:
    part = tick - np.floor(tick)
    result: Float = 0.5 * part * (1.0 - part)
    return result


def _dip(a: Float, v: Float) -> Float:
    """How far v < 0 still goes down while a > 0 falls by 1 a tick: to where its sum reaches -v; else 0."""
    half, v = 2.0 * a - 1.0, np.minimum(v, 0.0)
    root = (half - np.sqrt(np.maximum(half * half + 8.0 * v, 0.0))) / 2.0
    ticks = np.maximum(np.ceil(root) - 1.0, 0.0)
    result: Float = ticks * (v + (ticks + 1.0) * (a / 2.0 - (ticks + 2.0) / 6.0))
    return result

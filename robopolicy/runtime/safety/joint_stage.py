"""The limits of each joint alone: which commands keep them, and leave a stop that keeps them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits
from robopolicy.runtime.safety.stopping import Stop, TickLimits, plan_stop

Bool = NDArray[np.bool_]

_ROUNDING = 1e-9  # [rad, m]
_SLACK = 1e-7  # of each limit: rounding of references that ride on it
#: Of the way from the stored stop's next command to the wanted one, the first that is verified.
_SHARES = np.array([0.75, 0.5, 0.35, 0.2, 0.1, 0.03])[:, None]


class Candidate(NamedTuple):
    """A command, (dim,), and a stop after it."""

    command: Float
    stop: Stop

    def where(self, own: Bool, other: Candidate) -> Candidate:
        """Its own dimensions where told, the other's elsewhere."""
        command = np.where(own, self.command, other.command)
        return Candidate(command, other.stop.merged(own, self.stop))


class Sent(NamedTuple):
    """What was sent last, its differences in units of one tick, each (dim,), and the stored stop after it."""

    position: Float
    velocity: Float
    acceleration: Float
    stop: Stop

    def followed_by(self, candidate: Candidate) -> Sent:
        """The same one tick later."""
        velocity = candidate.command - self.position
        return Sent(candidate.command, velocity, velocity - self.velocity, candidate.stop)


class JointStage:
    """Verifies commands dimension by dimension.

    Args:
        limits: with position limits as they are to be kept.
        dt: between commands [s].
    """

    def __init__(self, limits: Limits, dt: float) -> None:
        self.limits, self.dt, self.tick = limits, dt, TickLimits.of(limits, dt)
        self.most = TickLimits(*((1.0 + _SLACK) * getattr(self.tick, n) for n in TickLimits.names()))
        self._lower, self._upper = limits.lower - _ROUNDING, limits.upper + _ROUNDING

    def outside(self, position: Float) -> Bool:
        """(dim,) beyond the position limits."""
        return (position < self._lower) | (position > self._upper)

    def clipped(self, position: Float) -> Float:
        """(dim,) brought to the position limits."""
        inside: Float = np.minimum(np.maximum(position, self.limits.lower), self.limits.upper)
        return inside

    def stoppable(self, position: Float, velocity: Float, acceleration: Float) -> tuple[Bool, Stop]:
        """Which dimensions may be in a state, and its quickest stop.

        Args:
            position, velocity, acceleration: (..., dim) in units of one tick.
        """
        most, tick = self.most, self.tick
        good = (np.abs(velocity) <= most.velocity) & (np.abs(acceleration) <= most.acceleration)
        stop, extent = plan_stop(
            np.minimum(np.maximum(velocity, -most.velocity), most.velocity),
            np.minimum(np.maximum(acceleration, -tick.acceleration), tick.acceleration),
            tick,
        )
        good &= extent.fastest <= most.velocity
        good &= position + extent.lowest >= np.minimum(self._lower, position) - 1e-12
        good &= position + extent.highest <= np.maximum(self._upper, position) + 1e-12
        return good, stop

    def verified(self, last: Sent, command: Float) -> tuple[Bool, Stop]:
        """Which dimensions may be sent after the last command, and the quickest stop after them.

        Outside the position limits a command must be at least as far in as the last.

        Args:
            command: (..., dim).
        """
        velocity = command - last.position
        acceleration = velocity - last.velocity
        good = np.abs(acceleration - last.acceleration) <= self.most.jerk
        good &= command >= np.minimum(self._lower, last.position)
        good &= command <= np.maximum(self._upper, last.position)
        if command.ndim == 1 and not good.any():
            return good, last.stop  # of no dimension; planning costs more than all the rest
        stoppable, stop = self.stoppable(command, velocity, acceleration)
        return good & stoppable, stop

    def halt(self, last: Sent) -> Candidate:
        """The stored stop's next command, and the rest of that stop."""
        velocity = last.stop.next_velocity(last.velocity, self.tick)
        return Candidate(last.position + velocity, last.stop.older())

    def nearest(self, last: Sent, wanted: Float) -> Candidate:
        """Each dimension as far as can be verified from the stored stop's next command to the wanted one."""
        good, stop = self.verified(last, wanted)
        if good.all():
            return Candidate(wanted, stop)
        halt = self.halt(last)
        commands = halt.command + _SHARES * (wanted - halt.command)
        some, stops = self.verified(last, commands)
        index, each = np.argmax(some, axis=0), np.arange(len(good))
        less = Candidate(commands[index, each], stops.row(index)).where(some[index, each], halt)
        return Candidate(wanted, stop).where(good, less)

    def reasons(self, last: Sent, desired: Float, refused: Bool) -> tuple[str, ...]:
        """Why the refused dimensions of a reference are."""
        velocity = desired - last.position
        acceleration = velocity - last.velocity
        found = {
            "position": self.outside(desired),
            "velocity": np.abs(velocity) > self.most.velocity,
            "acceleration": np.abs(acceleration) > self.most.acceleration,
            "jerk": np.abs(acceleration - last.acceleration) > self.most.jerk,
        }
        reasons = tuple(name for name, where in found.items() if (where & refused).any())
        unexplained = refused & ~np.any(list(found.values()), axis=0)
        return (*reasons, "stopping") if unexplained.any() else reasons

    def overrun(self, last: Sent, desired: Float, target_velocity: Float) -> Bool:
        """Where a reference within reach would be met so fast that it could not be followed from there.

        Args:
            target_velocity: (dim,) of the reference itself, a tick.
        """
        velocity = desired - last.position
        turn = target_velocity - velocity  # acceleration of the tick after
        change = turn - (velocity - last.velocity)
        reach = np.minimum(self.tick.acceleration, self.tick.jerk)
        result: Bool = (np.abs(turn) > reach) | (np.abs(change) > self.tick.jerk)
        return result

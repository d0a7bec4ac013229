"""A chunk laid out in time: its waypoints, and the tail that brings it to rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.robot import Limits


@dataclass(frozen=True)
class Plan:
    """Waypoints at even intervals.

    Args:
        points: (n, dim).
        first_ns: instant of the first.
        period_ns: between them.
        observed_ns: time of the observation they answer.
    """

    points: Float
    first_ns: int
    period_ns: int
    observed_ns: int

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """(n,) instants of the waypoints."""
        return self.first_ns + np.arange(len(self.points), dtype=np.int64) * self.period_ns

    @property
    def last_ns(self) -> int:
        """Instant of the last waypoint."""
        return self.first_ns + (len(self.points) - 1) * self.period_ns

    def at(self, times_ns: NDArray[np.int64]) -> Float:
        """(n,) instants to (n, dim) waypoints, linear in between, held outside.

        Waypoints rather than positions on the curve, so that the same grid gives back the same waypoints.
        """
        places = np.clip((times_ns - self.first_ns) / self.period_ns, 0, len(self.points) - 1)
        before = np.minimum(places.astype(np.int64), max(len(self.points) - 2, 0))
        after = np.minimum(before + 1, len(self.points) - 1)
        share = (places - before)[:, None]
        found: Float = (1 - share) * self.points[before] + share * self.points[after]
        return found

    def covers(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) instants to whether they lie between first and last waypoint."""
        return np.asarray((times_ns >= self.first_ns) & (times_ns <= self.last_ns))


def paced_grips(plan: Plan, before: Plan, until_ns: int, grips: NDArray[np.bool_], limits: Limits) -> Float:
    """Waypoints with the grippers' openings kept to their stroke and speed.

    A gripper is slow, and what is too fast for it would keep the safety filter busy without making it any
    quicker. Openings due up to ``until_ns`` stay those of the plan before; from there on they go towards the
    new ones as fast as they may.

    Args:
        plan: the new one.
        grips: (dim,) which are grippers.
    Returns:
        (n, dim) points of ``plan``, other dimensions untouched.
    """
    points = plan.points.copy()
    if not grips.any():
        return points
    committed = int(np.clip((until_ns - plan.first_ns) // plan.period_ns + 1, 1, len(points)))
    lower, upper = limits.lower[grips], limits.upper[grips]
    wanted = np.clip(points[:, grips], lower, upper)
    wanted[:committed] = np.clip(before.at(plan.times_ns[:committed])[:, grips], lower, upper)
    step = limits.velocity[grips] * plan.period_ns * 1e-9
    for k in range(committed, len(points)):
        wanted[k] = np.clip(wanted[k], wanted[k - 1] - step, wanted[k - 1] + step)
    points[:, grips] = wanted
    return points


def braking_tail(
    points: Float, period: float, brake_s: float, grips: NDArray[np.bool_], limits: Limits | None
) -> Float:
    """Waypoints after the last one, whose steps shrink evenly to nothing.

    With a last step d and n periods to stop in they are d (n - 1) / n, ... d / n: a deceleration of d / (n
    period^2) throughout, and rest n periods after the last waypoint. Grippers stop at once: there is no
    telling what lies beyond the opening asked for.

    Args:
        points: (n, dim) waypoints of the chunk.
        period: between them [s].
        brake_s: time to stop in [s], rounded down to whole periods, one at least.
        grips: (dim,) which are grippers.
        limits: lengthens the tail where the deceleration would exceed them (to at most four times), and
            keeps it inside the position limits; None knows none.
    Returns:
        (tail, dim), possibly empty.
    """
    step = np.where(grips, 0.0, points[-1] - points[-2]) if len(points) > 1 else np.zeros(points.shape[1])
    # A hair more, so that 0.3 s is three periods of 0.1 s.
    count = max(math.floor(brake_s / period + 1e-9), 1)
    if limits is not None:
        needed = math.ceil(float(np.max(np.abs(step) / (limits.acceleration * period**2))) - 1e-9)
        count = min(max(count, needed), 4 * count)
    shares = np.cumsum(1.0 - np.arange(1, count) / count)
    tail: Float = points[-1] + shares[:, None] * step
    if limits is None:
        return tail
    lower, upper = np.minimum(limits.lower, points[-1]), np.maximum(limits.upper, points[-1])
    return np.clip(tail, lower, upper)

"""What a tick of the filter costs."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from robopolicy import robots
from robopolicy.runtime import SafetyConfig, SafetyFilter


@dataclass(frozen=True)
class TickCost:
    """CPU time of one call [ms]: of a reference that passes, and of one that has to be caught up with."""

    robot: str
    rate_hz: float
    checks: str
    passing_ms_p50: float
    passing_ms_p99: float
    tracking_ms_p50: float
    tracking_ms_p99: float


def tick_cost(name: str, rate: float, ticks: int, *, cartesian: bool) -> TickCost:
    """Sway about home, then chase targets that jump five times a second."""
    robot, rng = robots.load(name), np.random.default_rng(0)
    config = SafetyConfig.for_robot(robot)
    if not cartesian:
        config = SafetyConfig(config.position_margin, config.tracking_error, config.observation_age_s)
    guard, home = SafetyFilter(robot.limits, rate, config), np.array([*robot.home, 0.04])
    guard.reset(home)
    width = np.where(np.arange(len(home)) % 2 == 0, 0.15, 0.03)
    width[-1] = 0.01
    passing, tracking = [], []
    for k in range(1, ticks):
        desired = home + width * (1 - np.cos(1.2 * k / rate))
        passing.append(_timed(guard, desired))
    for k in range(ticks):
        if k % round(rate / 5) == 0:
            desired = guard.position + rng.normal(size=len(home)) * 0.3
        tracking.append(_timed(guard, desired))
    return TickCost(
        robot=name,
        rate_hz=rate,
        checks="all" if cartesian else "joints",
        passing_ms_p50=statistics.median(passing),
        passing_ms_p99=float(np.percentile(passing, 99)),
        tracking_ms_p50=statistics.median(tracking),
        tracking_ms_p99=float(np.percentile(tracking, 99)),
    )


def _timed(guard: SafetyFilter, desired: np.ndarray) -> float:
    measured = guard.position
    began = time.process_time()
    guard.filter(desired, measured=measured, observation_age_s=0.05)
    return (time.process_time() - began) * 1e3

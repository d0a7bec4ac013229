"""Runs of adversarial chunks through the filter: many arms side by side, or one whole arm."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robopolicy import robots
from robopolicy.core.errors import ConfigError
from robopolicy.core.robot import Limits
from robopolicy.runtime import SafetyConfig, SafetyFilter
from safety.chunks import PERIOD_S, draw
from safety.judge import ArmJudge, count_joint_violations

Float = NDArray[np.float64]
CHUNKS_A_RUN = 40


@dataclass
class Tally:
    """What runs added up to; a dimension tick is one number sent."""

    chunks: int = 0
    ticks: int = 0
    braked_ticks: int = 0
    unmodified_ticks: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    interventions: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        for name in ("chunks", "ticks", "braked_ticks", "unmodified_ticks"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.violations += other.violations
        self.interventions += other.interventions


def tiled(arms: int) -> tuple[Limits, tuple[float, ...]]:
    """Limits of every robot file in turn, ``arms`` arms in all, and their margins, per dimension."""
    loaded = [robots.load(name) for name in robots.names()]
    chosen = [loaded[k % len(loaded)] for k in range(arms)]
    margin = tuple(m for robot in chosen for m in SafetyConfig.for_robot(robot).position_margin)
    names = [f.name for f in dataclasses.fields(Limits)]
    return Limits(*(np.concatenate([getattr(r.limits, n) for r in chosen]) for n in names)), margin


def within(limits: Limits, margin: tuple[float, ...]) -> Limits:
    """The limits the filter must keep."""
    return dataclasses.replace(limits, lower=limits.lower + margin, upper=limits.upper - margin)


def moving_start(rng: np.random.Generator, limits: Limits, dt: float) -> tuple[Float, Float, Float]:
    """Position, velocity, acceleration, (dim,) each, scaled down until a plain bound says a stop exists."""
    dim = len(limits.lower)
    position = rng.uniform(limits.lower, limits.upper)
    velocity = rng.uniform(-1, 1, dim) * limits.velocity
    push = rng.uniform(-1, 1, dim) * limits.acceleration
    for _ in range(200):
        ramp = np.abs(push) / limits.jerk + dt
        peak = np.abs(velocity) + np.abs(push) * ramp
        time = ramp + peak / limits.acceleration + 2 * limits.acceleration / limits.jerk + 3 * dt
        room = np.minimum(position - limits.lower, limits.upper - position)
        bad = (peak > limits.velocity) | (peak * time > room)
        if not bad.any():
            return position, velocity, push
        velocity, push = np.where(bad, 0.8 * velocity, velocity), np.where(bad, 0.8 * push, push)
    still = np.where(bad, 0.0, 1.0)
    return position, velocity * still, push * still


def play(
    rng: np.random.Generator, guard: SafetyFilter, limits: Limits, arms: int, start: list[Float]
) -> tuple[Tally, Float]:
    """Chunk after chunk through one filter, then a stop: tally and (ticks, dim) commands, the start's too."""
    dt, sent, tally = 1 / guard.control_rate, list(start), Tally()
    guard.counts.clear()
    for _ in range(CHUNKS_A_RUN):
        chunk = draw(rng, limits, sent[-1], arms, dt)
        ticks = max(1, round(rng.integers(1, 5) * PERIOD_S / dt))
        spoiled = rng.random() < 0.03
        brakes = range(*np.sort(rng.integers(0, ticks + 1, 2))) if rng.random() < 0.05 else range(0)
        for tick in range(1, ticks + 1):
            if tick in brakes:
                sent.append(guard.brake())
                tally.braked_ticks += arms
                continue
            desired = chunk.at(tick, dt)
            if spoiled and rng.random() < 0.5:
                desired[rng.random(len(desired)) < 0.2] = rng.choice([np.nan, np.inf, -np.inf])
            command, reasons = guard.filter(desired)
            sent.append(command)
            tally.braked_ticks += arms if "non_finite" in reasons else 0
            tally.unmodified_ticks += arms == 1 and not reasons
        tally.ticks += ticks * arms
    while not guard.at_rest:
        sent.append(guard.brake())
    tally.chunks += CHUNKS_A_RUN * arms
    tally.interventions += guard.counts
    return tally, np.array(sent)


def wide_run(seed: int, rate: float, arms: int) -> Tally:
    """Many arms in one filter without Cartesian checks: its dimensions are independent of one another."""
    rng, dt = np.random.default_rng([seed, round(rate)]), 1 / rate
    limits, margin = tiled(arms)
    kept = within(limits, margin)
    guard = SafetyFilter(limits, rate, SafetyConfig(margin))
    position, velocity, push = moving_start(rng, kept, dt)
    guard.reset(position, velocity, push)
    v, a = velocity * dt, push * dt**2
    tally, sent = play(rng, guard, limits, arms, [position - 2 * v + a, position - v, position])
    tally.violations += count_joint_violations(sent, kept, dt, first=2)
    return tally


def arm_run(seed: int, rate: float, name: str) -> Tally:
    """One arm through every check."""
    rng, dt, robot = np.random.default_rng([seed, round(rate), 1]), 1 / rate, robots.load(name)
    config = dataclasses.replace(
        SafetyConfig.for_robot(robot), tool_speed=float(rng.choice([0.25, 0.5, 1.0]))
    )
    kept = within(robot.limits, config.position_margin)
    guard = SafetyFilter(robot.limits, rate, config)
    judge = ArmJudge(
        robot,
        tool_speed=config.tool_speed,
        clearance=config.link_clearance,
        tool_clearance=config.tool_clearance,
        table=config.enclosure_lower[2],
    )
    home = np.append(robot.home, robot.gripper.opening_max / 2)
    for _ in range(1000):
        position, velocity, push = moving_start(rng, kept, dt)
        nearness = rng.uniform(0, 0.5)  # most random postures are in the table
        position, velocity, push = home + nearness * (position - home), nearness * velocity, nearness * push
        v, a = velocity * dt, push * dt**2
        start = [position - 2 * v + a, position - v, position]
        if judge.count(np.array(start)[:, :-1], dt):
            continue
        try:
            guard.reset(position, velocity, push)
        except ConfigError:
            continue
        break
    else:
        raise RuntimeError(f"no admissible start of {name} was found")
    tally, sent = play(rng, guard, robot.limits, 1, start)
    tally.violations += count_joint_violations(sent, kept, dt, first=2)
    tally.violations += judge.count(sent[:, :-1], dt)
    return tally

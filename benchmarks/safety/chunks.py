"""Adversarial action chunks: 16 points at 10 Hz for many dimensions at once, and what reaches the filter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.robot import Limits

Float = NDArray[np.float64]
POINTS, PERIOD_S = 16, 0.1
KINDS = (
    *("jump", "step", "far", "edge", "edge_alternating", "chatter", "drift", "noise", "ramp_into_limit"),
    *("resonant_sine", "other_robot", "smooth", "hold"),
)


@dataclass(frozen=True)
class Chunk:
    """Points of every dimension and how they are played.

    Args:
        points: (POINTS, dim).
        late_s: how much of it is past when it arrives [s]; after its end the last point is held.
        smooth: (dim,) whether cubic or linear between points.
        wave: (dim,) amplitude of a square wave on top [rad, m], wave_ticks: half its period.
    """

    points: Float
    late_s: float
    smooth: NDArray[np.bool_]
    wave: Float
    wave_ticks: NDArray[np.int64]

    def at(self, tick: int, dt: float) -> Float:
        """(dim,) desired position ``tick`` ticks after it arrived."""
        s = min((self.late_s + tick * dt) / PERIOD_S, POINTS - 1.0)
        k = min(int(s), POINTS - 2)
        part, p = s - k, self.points
        linear = p[k] + part * (p[k + 1] - p[k])
        before, after = p[max(k - 1, 0)], p[min(k + 2, POINTS - 1)]
        m0, m1 = (p[k + 1] - before) / 2, (after - p[k]) / 2
        bend = p[k + 1] - p[k]
        cubic = p[k] + part * (m0 + part * (3 * bend - 2 * m0 - m1 + part * (m0 + m1 - 2 * bend)))
        wave = self.wave * np.where((tick // self.wave_ticks) % 2 == 0, 1.0, -1.0)
        result: Float = np.where(self.smooth, cubic, linear) + wave
        return result


def draw(rng: np.random.Generator, limits: Limits, last: Float, arms: int, dt: float) -> Chunk:
    """One chunk for each of ``arms`` equal shares of the dimensions, a third of them of mixed kinds."""
    dim = len(last)
    each = rng.integers(len(KINDS), size=arms)[np.arange(dim) * arms // dim]
    mixed = (rng.random(arms) < 1 / 3)[np.arange(dim) * arms // dim]
    kind = np.where(mixed, rng.integers(len(KINDS), size=dim), each)
    points = np.choose(kind, [make(name, rng, limits, last) for name in KINDS])
    scale = np.choose(
        rng.integers(4, size=dim),
        [np.zeros(dim), limits.velocity * dt, limits.acceleration * dt**2, limits.jerk * dt**3],
    )
    return Chunk(
        points=points,
        late_s=float(rng.choice([0.0, 0.0, rng.uniform(0, 0.5), rng.uniform(0, 2.0)])),
        smooth=rng.random(dim) < 0.5,
        wave=scale * rng.uniform(0, 2, dim),
        wave_ticks=rng.integers(1, 20, size=dim),
    )


def make(kind: str, rng: np.random.Generator, limits: Limits, last: Float) -> Float:
    """(POINTS, dim) of one kind, beginning where the filter is or anywhere."""
    shape, lower, upper = (POINTS, len(last)), limits.lower, limits.upper
    time = np.arange(1, POINTS + 1)[:, None] * PERIOD_S
    anywhere = rng.uniform(lower - 0.2, upper + 0.2)
    if kind == "jump":
        return rng.uniform(lower - 1, upper + 1, shape)
    if kind == "step":
        return np.broadcast_to(anywhere, shape)
    if kind == "far":
        return np.broadcast_to(rng.choice([-1e300, -1e9, 1e9, 1e300], shape[1]), shape)
    if kind == "edge":
        return np.broadcast_to(np.where(rng.random(shape[1]) < 0.5, lower, upper), shape)
    if kind == "edge_alternating":
        return np.where((np.arange(POINTS)[:, None] // rng.integers(1, 8, shape[1])) % 2 == 0, lower, upper)
    if kind == "chatter":
        size = limits.velocity * PERIOD_S * rng.uniform(0, 1.5, shape[1])
        return last + size * rng.choice([-1, 1], shape)
    if kind == "drift":
        return last + rng.choice([-1, 1], shape[1]) * limits.velocity * rng.uniform(0.9, 1.5, shape[1]) * time
    if kind == "noise":
        return last + rng.normal(size=shape) * 10.0 ** rng.uniform(-5, -1, shape[1])
    if kind == "ramp_into_limit":
        towards = np.where(rng.random(shape[1]) < 0.5, lower - last, upper - last)
        return last + np.sign(towards) * limits.velocity * 0.99 * time
    if kind == "resonant_sine":
        amplitude = (upper - lower) * 10.0 ** rng.uniform(-3, 0, shape[1])
        omega = np.sqrt(limits.acceleration / amplitude) * rng.uniform(0.3, 2, shape[1])
        return last + amplitude * np.sin(omega * time)
    if kind == "other_robot":  # its home and limits are elsewhere: another dimension's, shuffled
        other = rng.permutation(shape[1])
        walk = np.cumsum(rng.normal(size=shape) * limits.velocity[other] * PERIOD_S * 0.3, axis=0)
        return np.clip(anywhere[other] + walk, lower[other], upper[other])
    if kind == "smooth":
        goal = last + (anywhere - last) * rng.uniform(0, 0.5)
        return last + (goal - last) * (1 - np.cos(np.pi * time / time[-1])) / 2
    return np.broadcast_to(last, shape)

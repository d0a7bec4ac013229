"""Shared by the tests of the chunk scheduler: specs, arrivals of chunks in any order, a slow B-spline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from robopolicy.core.horizons import Horizons
from robopolicy.core.robot import Limits
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.runtime import ChunkScheduler, SchedulerConfig

MS = 1_000_000
PERIOD_NS = 100 * MS
HORIZONS = Horizons(2, 16, 8)
MODES = ("replace", "ensemble", "real_time_chunking")
LIMITS = Limits(
    lower=np.array([-2.0, -2.0, 0.0]),
    upper=np.array([2.0, 2.0, 0.08]),
    velocity=np.array([2.0, 2.0, 0.1]),
    acceleration=np.array([10.0, 10.0, 2.0]),
    jerk=np.array([5000.0, 5000.0, 500.0]),
)


def make_specs(
    reference: str = "absolute",
    reached: str = "end",
    space: str = "joint_position",
    horizons: Horizons = HORIZONS,
    takes_prefix: bool = True,
) -> PolicySpecs:
    """Two joints and a gripper at 10 Hz."""
    parts = ActionPart(space, ("a", "b"), reference), ActionPart("gripper_opening", ("grip",))
    specs = Specs({"q": ArraySpec((3,))}, ActionSpec(parts, reached), policy_rate=10.0)
    return PolicySpecs(specs, horizons, takes_prefix=takes_prefix)


def make_scheduler(
    mode: str = "replace", *, limits: Limits | None = LIMITS, reached: str = "end", start_ns: int = 0
) -> ChunkScheduler:
    scheduler = ChunkScheduler(make_specs(reached=reached), SchedulerConfig(mode=mode), limits=limits)
    scheduler.reset(np.array([0.1, 0.2, 0.03]), start_ns)
    return scheduler


def action_time_ns(k: int, observed_ns: int, reached: str = "end") -> int:
    """When action k of a chunk is due, written out from the conventions in core."""
    step_begins_ns = observed_ns + (k - (HORIZONS.observation - 1)) * PERIOD_NS
    return step_begins_ns + {"start": 0, "end": PERIOD_NS}[reached]


@dataclass(frozen=True)
class Arrival:
    """A chunk, the time of its observation, and when it comes."""

    observed_ns: int
    now_ns: int
    chunk: np.ndarray


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    """In the order in which they come: late ones, overtaken ones, the same one twice, several at once."""
    result, at = [], 0
    for _ in range(draw(st.integers(1, 6))):
        at += draw(st.sampled_from([0, 1, 100, 200, 800])) * MS + draw(st.integers(0, 400_000_000))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        steps = rng.normal(scale=draw(st.sampled_from([0.0, 0.02, 3.0])), size=(16, 3))
        result.append(Arrival(at, at + draw(st.integers(0, 1800)) * MS, np.cumsum(steps, axis=0)))
    if draw(st.booleans()):
        result.append(result[draw(st.integers(0, len(result) - 1))])
    return sorted(result, key=lambda arrival: arrival.now_ns)


def slow_spline(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, dim) waypoints at 0, 1, 2...: the sum of all cubic B-spline kernels at (m,) places, (m, dim)."""
    u = np.abs(places[:, None] - np.arange(len(points)))
    near, far = (4 - 6 * u**2 + 3 * u**3) / 6, np.maximum(2 - u, 0) ** 3 / 6
    return np.where(u <= 1, near, far) @ points

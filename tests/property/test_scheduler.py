"""Properties of the chunk scheduler, for any chunks at any delays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.runtime import ChunkScheduler, SchedulerConfig
from robopolicy.runtime.delay import DelayMeter
from robopolicy.runtime.spline import Knots, Path, slopes

MS = 1_000_000
PERIOD_NS = 100 * MS
HORIZONS = Horizons(2, 16, 8)


def specs(reference: str = "absolute", reached: str = "end", space: str = "joint_position") -> PolicySpecs:
    parts = ActionPart(space, ("a", "b"), reference), ActionPart("gripper_opening", ("grip",))
    action = ActionSpec(parts, reached)
    return PolicySpecs(Specs({"q": ArraySpec((3,))}, action, policy_rate=10.0), HORIZONS)


def action_time_ns(k: int, observed_ns: int, reached: str = "end") -> int:
    """When action k of a chunk is to be reached, written out from the conventions in core."""
    step_begins_ns = observed_ns + (k - (HORIZONS.observation - 1)) * PERIOD_NS
    return step_begins_ns + {"start": 0, "end": PERIOD_NS}[reached]


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[int, int, np.ndarray]]:
    """(observation time, delay, chunk) of successive requests."""
    result, at = [], 0
    for _ in range(draw(st.integers(1, 5))):
        at += draw(st.integers(20, 2500)) * MS
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        chunk = rng.normal(scale=draw(st.sampled_from([0.0, 0.1, 3.0])), size=(16, 3))
        result.append((at, draw(st.integers(1, 1800)) * MS, np.cumsum(chunk, axis=0)))
    return result


@given(runs())
@settings(max_examples=60, deadline=None)
def test_splices_keep_position_velocity_and_acceleration(run: list) -> None:
    scheduler = ChunkScheduler(specs())
    scheduler.reset(np.array([0.1, 0.2, 0.03]), 0)
    for observed_ns, delay_ns, chunk in sorted(run, key=lambda r: r[0] + r[1]):
        now_ns = observed_ns + delay_ns
        before = scheduler._path.state(now_ns)
        scheduler.accept(chunk, observed_ns, now_ns)
        for old, new in zip(before, scheduler._path.state(now_ns), strict=True):
            np.testing.assert_allclose(new, old, atol=1e-9, rtol=1e-9)


@given(runs(), st.sampled_from(["end", "start"]))
@settings(max_examples=60, deadline=None)
def test_meets_future_points_on_time_and_never_the_past(run: list, reached: str) -> None:
    scheduler = ChunkScheduler(specs(reached=reached), SchedulerConfig(join_periods=1.0))
    scheduler.reset(np.zeros(3), 0)
    newest = -1
    for observed_ns, delay_ns, chunk in sorted(run, key=lambda r: r[0] + r[1]):
        now_ns = observed_ns + delay_ns
        due = [k for k in range(16) if action_time_ns(k, observed_ns, reached) >= now_ns + PERIOD_NS]
        due = [k for k in due if k >= HORIZONS.action_start]
        dropped = scheduler.counters.dropped_points
        accepted = scheduler.accept(chunk, observed_ns, now_ns)
        assert accepted == (bool(due) and observed_ns > newest)
        if accepted:
            newest = observed_ns
            assert scheduler.counters.dropped_points - dropped == due[0] - HORIZONS.action_start
            for k in due:
                position, _ = scheduler.reference(action_time_ns(k, observed_ns, reached))
                np.testing.assert_allclose(position, chunk[k], atol=1e-9)


@given(runs())
@settings(max_examples=60, deadline=None)
def test_every_chunk_ends_at_rest(run: list) -> None:
    config = SchedulerConfig()
    scheduler = ChunkScheduler(specs(), config)
    scheduler.reset(np.zeros(3), 0)
    for observed_ns, delay_ns, chunk in sorted(run, key=lambda r: r[0] + r[1]):
        scheduler.accept(chunk, observed_ns, observed_ns + delay_ns)
    end_ns = (scheduler.covered_until_ns or 0) + round(config.brake_s * 1e9)
    resting, velocity = scheduler.reference(end_ns)
    assert not velocity.any()
    almost, slow = scheduler.reference(end_ns - 1)
    np.testing.assert_allclose(almost, resting, atol=1e-6)
    np.testing.assert_allclose(slow, 0, atol=1e-4)
    later, velocity = scheduler.reference(end_ns + 10**12)
    assert np.array_equal(later, resting) and not velocity.any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.001, 0.04, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_gripper_never_overshoots_its_waypoints(seed: int, scale: float) -> None:
    waypoints = np.random.default_rng(seed).uniform(0, scale, size=(16, 1))
    velocity, acceleration = slopes(waypoints, 0.1, np.array([True]))
    path = Path(Knots(tuple(range(0, 16 * PERIOD_NS, PERIOD_NS)), waypoints, velocity, acceleration))
    for k in range(15):
        low, high = sorted(waypoints[k : k + 2, 0])
        for part in np.linspace(0, 1, 41):
            value = path.state(round((k + part) * PERIOD_NS))[0][0]
            assert low - 1e-12 <= value <= high + 1e-12


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_velocity_is_the_derivative_of_position(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scheduler = ChunkScheduler(specs())
    scheduler.reset(rng.normal(size=3), 0)
    scheduler.accept(rng.normal(size=(16, 3)), 0, 130 * MS)
    for now_ns in rng.integers(140 * MS, 1900 * MS, size=10).tolist():
        (before, _), (after, _) = scheduler.reference(now_ns - 1000), scheduler.reference(now_ns + 1000)
        np.testing.assert_allclose(scheduler.reference(now_ns)[1], (after - before) / 2e-6, atol=1e-3)


def test_a_smooth_chunk_is_followed_closely_between_its_points() -> None:
    scheduler = ChunkScheduler(specs())
    scheduler.reset(np.zeros(3), 0)
    times = np.array([action_time_ns(k, 0) for k in range(16)]) * 1e-9
    scheduler.accept(np.repeat(np.sin(2 * times)[:, None], 3, axis=1), 0, 0)
    for now_ns in range(300 * MS, 1300 * MS, 7 * MS):
        error = scheduler.reference(now_ns)[0] - np.sin(2e-9 * now_ns)
        assert np.abs(error[:2]).max() < 2e-4
        assert abs(error[2]) < 2e-2  # monotone interpolation flattens peaks


def test_requests_follow_the_executed_horizon() -> None:
    scheduler = ChunkScheduler(specs())
    scheduler.reset(np.zeros(3), 0)
    requested, pending = [], None
    for step in range(60):
        now_ns = step * PERIOD_NS + (step % 3) * MS  # observations jitter
        if pending is not None and now_ns >= pending + 50 * MS:
            scheduler.accept(np.zeros((16, 3)), pending, pending + 50 * MS)
            pending = None
        if scheduler.should_request(now_ns):
            scheduler.mark_requested(now_ns)
            assert not scheduler.should_request(now_ns + PERIOD_NS)
            requested.append(step)
            pending = now_ns
    assert requested == list(range(0, 60, HORIZONS.action))
    assert scheduler.delay_p95_ns == 50 * MS
    scheduler.reference(scheduler.covered_until_ns)
    assert scheduler.counters.starved_ticks == 0


def test_logged_set_points_are_reached_one_period_sooner() -> None:
    chunk = np.repeat(np.arange(16.0)[:, None], 3, axis=1)
    for reached, at_ns in [("start", 500 * MS), ("end", 600 * MS)]:
        scheduler = ChunkScheduler(specs(reached=reached))
        scheduler.reset(np.zeros(3), 0)
        assert scheduler.accept(chunk, 0, 50 * MS)
        np.testing.assert_allclose(scheduler.reference(at_ns)[0], 6.0, atol=1e-9)  # 5 after the current
        assert scheduler.covered_until_ns == action_time_ns(15, 0, reached)


@pytest.mark.parametrize(
    ("delay_ms", "reached"),
    [(50, "end"), (300, "end"), (600, "end"), (700, "end"), (50, "start"), (300, "start"), (600, "start")],
)
def test_a_known_delay_never_starves(delay_ms: int, reached: str) -> None:
    """A chunk of 15 usable actions covers 8 executed and a delay up to about 5 periods by asking early."""
    scheduler = ChunkScheduler(specs(reached=reached))
    scheduler.reset(np.zeros(3), 0)
    pending, starved_at_start = None, None
    for tick in range(3000):
        now_ns = tick * 10 * MS
        if pending is not None and now_ns >= pending + delay_ms * MS:
            scheduler.accept(np.full((16, 3), 0.1), pending, now_ns)
            pending = None
        if tick % 10 == 0 and scheduler.should_request(now_ns):
            scheduler.mark_requested(now_ns)
            pending = now_ns
        scheduler.reference(now_ns + 10 * MS)
        if tick == 500:
            starved_at_start = scheduler.counters.starved_ticks
    assert scheduler.counters.starved_ticks == starved_at_start
    assert scheduler.counters.late_chunks == 0


def test_silence_is_counted_and_failure_allows_another_request() -> None:
    scheduler = ChunkScheduler(specs())
    scheduler.reset(np.zeros(3), 0)
    scheduler.mark_requested(0)
    scheduler.mark_failed()
    assert scheduler.should_request(0)
    scheduler.accept(np.zeros((16, 3)), 0, 0)
    scheduler.reference(action_time_ns(15, 0))
    assert scheduler.counters.starved_ticks == 0
    scheduler.reference(action_time_ns(15, 0) + 1)
    assert scheduler.counters.starved_ticks == 1


def test_bad_chunks_change_nothing() -> None:
    scheduler = ChunkScheduler(specs())
    scheduler.reset(np.zeros(3), 0)
    scheduler.accept(np.ones((16, 3)), 0, 0)
    before = scheduler.reference(700 * MS)
    with pytest.raises(ShapeError, match="15"):
        scheduler.accept(np.ones((15, 3)), PERIOD_NS, PERIOD_NS)
    with pytest.raises(NonFiniteValueError, match="1 non-finite"):
        scheduler.accept(np.where(np.arange(48).reshape(16, 3) == 5, np.nan, 0), PERIOD_NS, PERIOD_NS)
    assert np.array_equal(before, scheduler.reference(700 * MS))


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(ConfigError, match="relative joint_position"):
        ChunkScheduler(specs("relative"))
    for space in ("joint_delta", "normalised"):
        reference = "relative" if space == "joint_delta" else "absolute"
        with pytest.raises(ConfigError, match=f"cannot stream {reference} {space}"):
            ChunkScheduler(specs(reference, space=space))
    with pytest.raises(ConfigError, match="replan_every 16"):
        ChunkScheduler(specs(), SchedulerConfig(replan_every=16))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=80))
def test_delay_is_a_windowed_percentile_without_warmup(delays: list[int]) -> None:
    meter = DelayMeter(window=20, warmup=2)
    assert meter.p95_ns == 0
    for delay in delays:
        meter.add(delay)
    kept = delays[2:][-20:] or [delays[min(len(delays), 2) - 1]]
    assert meter.p95_ns == int(np.percentile(kept, 95))

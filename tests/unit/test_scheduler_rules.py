"""When the chunk scheduler asks, what it counts, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from chunks import HORIZONS, LIMITS, MS, PERIOD_NS, action_time_ns, make_scheduler, make_specs

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, UnknownNameError
from robopolicy.core.horizons import Horizons
from robopolicy.runtime import ChunkScheduler, SchedulerConfig
from robopolicy.runtime.scheduling.spline import CrossFade, Spline, fade_time


def test_a_smooth_chunk_is_followed_closely_between_its_points():
    scheduler = make_scheduler(limits=None)
    times = np.array([action_time_ns(k, 0) for k in range(16)]) * 1e-9
    scheduler.accept(np.repeat(np.sin(2 * times)[:, None], 3, axis=1), 0, 0)
    for now_ns in range(300 * MS, 1300 * MS, 7 * MS):
        error = scheduler.reference(now_ns)[0] - np.sin(2e-9 * now_ns)
        assert np.abs(error).max() < 0.1**2 / 6 * 4 * 1.01  # a sixth of the second difference


def test_requests_follow_the_executed_horizon():
    scheduler = make_scheduler()
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


def test_logged_set_points_are_reached_one_period_sooner():
    chunk = np.repeat(np.arange(16.0)[:, None], 3, axis=1)
    for reached, at_ns in [("start", 500 * MS), ("end", 600 * MS)]:
        scheduler = make_scheduler(limits=None, reached=reached)
        assert scheduler.accept(chunk, 0, 0)
        np.testing.assert_allclose(scheduler.reference(at_ns)[0], 6.0, atol=1e-9)  # 5 after the current
        assert scheduler.covered_until_ns == action_time_ns(15, 0, reached)


@pytest.mark.parametrize(
    ("delay_ms", "reached"),
    [(50, "end"), (300, "end"), (600, "end"), (700, "end"), (50, "start"), (300, "start"), (600, "start")],
)
def test_a_known_delay_never_starves(delay_ms, reached):
    """A chunk of 15 usable actions covers 8 executed and a delay up to about 5 periods by asking early."""
    scheduler = make_scheduler(reached=reached)
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


def test_silence_is_counted_and_failure_allows_another_request():
    scheduler = make_scheduler()
    scheduler.mark_requested(0)
    scheduler.mark_failed()
    assert scheduler.should_request(0)
    scheduler.accept(np.zeros((16, 3)), 0, 0)
    scheduler.reference(action_time_ns(15, 0))
    assert scheduler.counters.starved_ticks == 0
    scheduler.reference(action_time_ns(15, 0) + 1)
    assert scheduler.counters.starved_ticks == 1


@pytest.mark.parametrize(("speed", "seconds"), [(0.5, 0.3), (2.0, 0.3), (2.0, 0.6)])
def test_the_tail_brakes_within_the_acceleration_limit(speed, seconds):
    """At 2 rad/s and 0.3 s a steady stop takes 6.7 rad/s^2; under a limit of 4 it is given 0.5 s."""
    limits = (
        LIMITS if seconds == 0.3 else LIMITS.__class__(**{**vars(LIMITS), "acceleration": np.full(3, 4.0)})
    )
    scheduler = make_scheduler(limits=limits)
    chunk = np.zeros((16, 3))
    chunk[:, 0] = -1.9 + speed * 0.1 * np.cumsum(np.minimum(np.arange(16) / 10, 1.0))
    scheduler.reset(chunk[0], 0)
    scheduler.accept(chunk, 0, 0)
    covered_ns = scheduler.covered_until_ns
    expected = 0.3 if seconds == 0.3 else 0.5
    assert scheduler.rest_ns == covered_ns + round(expected * 1e9)
    states = [scheduler._path.state(at) for at in range(covered_ns - 2 * PERIOD_NS, scheduler.rest_ns, MS)]
    peak = max(float(np.abs(a).max()) for _, _, a in states)
    assert peak == pytest.approx(speed / expected, rel=1e-6)


def test_the_tail_keeps_inside_the_position_limits():
    chunk = np.zeros((16, 3))
    chunk[:, 0] = 1.99 - 0.1 * np.arange(16)[::-1]
    free, limited = make_scheduler(limits=None), make_scheduler()
    for scheduler in (free, limited):
        scheduler.accept(chunk, 0, 0)
    assert free.reference(free.rest_ns)[0][0] == pytest.approx(1.99 + 0.1)
    assert limited.reference(limited.rest_ns)[0][0] == pytest.approx(2.0)


@pytest.mark.parametrize(("gap", "speed"), [(0.2, 0.0), (0.0, 0.7), (0.1, 0.5), (0.1, -0.5)])
def test_a_fade_of_the_time_it_is_given_keeps_the_acceleration(gap, speed):
    seconds = fade_time(np.array([gap, 0.0]), np.array([speed, 0.0]), np.array([4.0, 1e-3]))
    duration_ns = round(seconds * 1e9)
    old = Spline(np.zeros((3, 1)), 0, PERIOD_NS)
    new = Spline(gap + speed * 0.1 * np.arange(100)[:, None], 0, PERIOD_NS)
    fade = CrossFade(old, new, 0, duration_ns)
    peak = max(abs(fade.state(t)[2][0]) for t in range(0, duration_ns, duration_ns // 500))
    assert peak <= 4.0 + 1e-9
    if speed >= 0:
        assert peak >= (3.9 if 0.0 in (gap, speed) else 3.0)


def test_bad_chunks_change_nothing():
    scheduler = make_scheduler()
    scheduler.accept(np.ones((16, 3)), 0, 0)
    before = scheduler.reference(700 * MS)
    with pytest.raises(ShapeError, match="15"):
        scheduler.accept(np.ones((15, 3)), PERIOD_NS, PERIOD_NS)
    with pytest.raises(NonFiniteValueError, match="1 non-finite"):
        scheduler.accept(np.where(np.arange(48).reshape(16, 3) == 5, np.nan, 0), PERIOD_NS, PERIOD_NS)
    assert np.array_equal(before, scheduler.reference(700 * MS))
    assert len(scheduler.joins) == 1
    scheduler.reset(np.zeros(3), 0)
    assert scheduler.joins == ()


def test_a_chunk_from_the_future_is_refused_and_the_reference_stays():
    scheduler = make_scheduler()
    before = scheduler.reference(0)[0]
    with pytest.raises(ConfigError, match=r"observed 0\.101 s after it came"):
        scheduler.accept(np.ones((16, 3)), 101 * MS, 0)
    assert np.array_equal(scheduler.reference(500 * MS)[0], before) and not scheduler.joins
    assert scheduler.accept(np.ones((16, 3)), 100 * MS, 0) and scheduler.delay_p95_ns == 0


def test_a_spline_holds_before_it_begins():
    points = np.cumsum(np.arange(6.0))[:, None]
    spline = Spline(points, 0, PERIOD_NS)
    first, _, _ = spline.state(-PERIOD_NS)
    for at_ns in (-PERIOD_NS - 1, -(10**12)):
        position, velocity, acceleration = spline.state(at_ns)
        assert np.array_equal(position, first) and not velocity.any() and not acceleration.any()


@pytest.mark.parametrize("mode", ["replace", "ensemble"])
def test_fades_that_overlap_do_not_remember_one_another_for_ever(mode):
    scheduler, free = make_scheduler(mode), make_scheduler(mode, limits=None)
    rng = np.random.default_rng(0)
    for k in range(300):
        for each in (scheduler, free):
            each.accept(rng.normal(scale=0.3, size=(16, 3)), k * PERIOD_NS, k * PERIOD_NS)
            depth, path = 0, each._path
            while isinstance(path, CrossFade):
                depth, path = depth + 1, path._old
            assert depth <= (17 if each is scheduler else 3)


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(ConfigError, match="relative joint_position"):
        ChunkScheduler(make_specs("relative"))
    for space in ("joint_delta", "normalised"):
        reference = "relative" if space == "joint_delta" else "absolute"
        with pytest.raises(ConfigError, match=f"cannot stream {reference} {space}"):
            ChunkScheduler(make_specs(reference, space=space))
    with pytest.raises(ConfigError, match="replan_every 16"):
        ChunkScheduler(make_specs(), SchedulerConfig(replan_every=16))
    with pytest.raises(ConfigError, match="takes a prefix"):
        ChunkScheduler(make_specs(takes_prefix=False), SchedulerConfig(mode="real_time_chunking"))
    with pytest.raises(UnknownNameError, match="real_time_chunking"):
        SchedulerConfig(mode="blend")
    with pytest.raises(ShapeError, match="3 dimensions"):
        ChunkScheduler(make_specs(), limits=LIMITS.__class__(*[np.ones(8)] * 5))


@pytest.mark.parametrize("horizons", [Horizons(1, 8, 4), Horizons(3, 16, 8), Horizons(1, 1, 1)])
def test_other_horizons_start_on_time(horizons):
    scheduler = ChunkScheduler(make_specs(horizons=horizons), SchedulerConfig(join_periods=0.5))
    scheduler.reset(np.full(3, 0.02), 0)
    chunk = np.full((horizons.prediction, 3), 0.02)
    assert scheduler.accept(chunk, 0, 0)
    for now_ns in range(0, 3_000 * MS, 10 * MS):
        np.testing.assert_allclose(scheduler.reference(now_ns)[0], 0.02, atol=1e-12)
    assert scheduler.covered_until_ns == (horizons.prediction - horizons.action_start) * PERIOD_NS

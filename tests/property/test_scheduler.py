"""Properties of the chunk scheduler, for any chunks that arrive in any order, in every mode."""

from __future__ import annotations

import numpy as np
import pytest
from chunks import (
    HORIZONS,
    LIMITS,
    MODES,
    MS,
    PERIOD_NS,
    Arrival,
    action_time_ns,
    arrivals,
    make_scheduler,
    slow_spline,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robopolicy.runtime import ChunkScheduler
from robopolicy.runtime.delay import DelayMeter

some = settings(max_examples=40, deadline=None)
in_every_mode = pytest.mark.parametrize("mode", MODES)
with_and_without_limits = pytest.mark.parametrize("limits", [None, LIMITS], ids=["free", "limited"])


def has_stood_still(scheduler: ChunkScheduler, observed_ns: int) -> bool:
    return not scheduler.joins or observed_ns >= scheduler.rest_ns


def still_due(observed_ns: int, now_ns: int, reached: str) -> list[int]:
    """Actions to execute that are due after a join of two periods."""
    steps = range(HORIZONS.action_start, HORIZONS.prediction)
    return [k for k in steps if action_time_ns(k, observed_ns, reached) >= now_ns + 2 * PERIOD_NS]


@in_every_mode
@with_and_without_limits
@given(run=arrivals())
@some
def test_splices_keep_position_velocity_and_acceleration(mode: str, limits, run: list[Arrival]) -> None:
    scheduler = make_scheduler(mode, limits=limits)
    for arrival in run:
        before = scheduler._path.state(arrival.now_ns)
        taken = scheduler.accept(arrival.chunk, arrival.observed_ns, arrival.now_ns)
        for old, new in zip(before, scheduler._path.state(arrival.now_ns), strict=True):
            np.testing.assert_allclose(new, old, atol=1e-9, rtol=1e-9)
        assert (scheduler.joins_ns[-1:] == (arrival.now_ns,)) or not taken


@in_every_mode
@given(run=arrivals(), seed=st.integers(0, 2**32 - 1))
@some
def test_velocity_and_acceleration_are_derivatives(mode: str, run: list[Arrival], seed: int) -> None:
    """Hence position and velocity are continuous everywhere, not at splices alone."""
    scheduler = make_scheduler(mode)
    for arrival in run:
        scheduler.accept(arrival.chunk, arrival.observed_ns, arrival.now_ns)
    end_ns, half = max(scheduler.rest_ns, run[-1].now_ns + 1) + 50 * MS, 10_000
    for now_ns in np.random.default_rng(seed).integers(run[-1].now_ns + half, end_ns, size=10).tolist():
        states = [scheduler._path.state(now_ns + offset) for offset in (-half, 0, half)]
        for derivative in (1, 2):
            slope = (states[2][derivative - 1] - states[0][derivative - 1]) / (2 * half * 1e-9)
            scale = 1.0 + max(np.abs(a.chunk).max() for a in run)
            np.testing.assert_allclose(
                states[1][derivative], slope, atol=10.0 * scale * 10**derivative * 1e-3
            )


@given(run=arrivals(), reached=st.sampled_from(["end", "start"]))
@some
def test_takes_what_can_still_be_joined_and_then_follows_it(run: list[Arrival], reached: str) -> None:
    scheduler = make_scheduler(limits=None, reached=reached)
    newest = -1
    for arrival in run:
        observed_ns, now_ns = arrival.observed_ns, arrival.now_ns
        shift_ns = now_ns - observed_ns if has_stood_still(scheduler, observed_ns) else 0
        dropped = scheduler.counters.dropped_points
        accepted = scheduler.accept(arrival.chunk, observed_ns, now_ns)
        assert accepted == (bool(still_due(observed_ns, now_ns, reached)) and observed_ns > newest)
        if accepted:
            newest = observed_ns
            observed_ns += shift_ns
            first = still_due(observed_ns, now_ns, reached)[0]
            assert scheduler.counters.dropped_points - dropped == first - HORIZONS.action_start
            first_ns = action_time_ns(0, observed_ns, reached)
            times_ns = np.arange(now_ns + 2 * PERIOD_NS, action_time_ns(14, observed_ns, reached), 37 * MS)
            found = [scheduler.reference(int(at_ns))[0] for at_ns in times_ns]
            expected = slow_spline(arrival.chunk, (times_ns - first_ns) / PERIOD_NS)
            np.testing.assert_allclose(np.reshape(found, (-1, 3)), expected, atol=1e-9)


@in_every_mode
@given(run=arrivals(), garbage=st.floats(-100, 100))
@some
def test_never_replays_the_past(mode: str, run: list[Arrival], garbage: float) -> None:
    """While it moves, actions due two periods ago or earlier have no say in anything that follows."""
    told, spoilt = make_scheduler(mode), make_scheduler(mode)
    for arrival in run:
        moving = not has_stood_still(told, arrival.observed_ns)
        latest_ns = arrival.now_ns - 2 * PERIOD_NS
        past = [k for k in range(16) if moving and action_time_ns(k, arrival.observed_ns) <= latest_ns]
        chunk = arrival.chunk.copy()
        chunk[past] = garbage
        told.accept(arrival.chunk, arrival.observed_ns, arrival.now_ns)
        spoilt.accept(chunk, arrival.observed_ns, arrival.now_ns)
    for now_ns in range(run[-1].now_ns, run[-1].now_ns + 2_500 * MS, 90 * MS):
        assert np.array_equal(told.reference(now_ns), spoilt.reference(now_ns))


@in_every_mode
@with_and_without_limits
@given(run=arrivals())
@some
def test_silence_stops_the_arm_within_the_brake_time(mode: str, limits, run: list[Arrival]) -> None:
    scheduler = make_scheduler(mode, limits=limits)
    for arrival in run:
        scheduler.accept(arrival.chunk, arrival.observed_ns, arrival.now_ns)
    rest_ns, covered_ns = scheduler.rest_ns, scheduler.covered_until_ns
    if covered_ns is not None:
        longest = 1 if limits is None else 4  # times brake_s, where the limits call for more
        assert rest_ns <= max(covered_ns + longest * 300 * MS, scheduler.joins_ns[-1] + 2 * PERIOD_NS)
    resting, velocity = scheduler.reference(rest_ns)
    assert not velocity.any()
    almost, slow = scheduler.reference(rest_ns - 1)
    np.testing.assert_allclose(almost, resting, atol=1e-6)
    np.testing.assert_allclose(slow, 0, atol=1e-4)
    later, velocity = scheduler.reference(rest_ns + 10**12)
    assert np.array_equal(later, resting) and not velocity.any()


@in_every_mode
@given(run=arrivals(), origin=st.integers(-(2**60), 2**60))
@some
def test_the_clock_may_begin_anywhere(mode: str, run: list[Arrival], origin: int) -> None:
    here, there = make_scheduler(mode), make_scheduler(mode, start_ns=origin)
    for arrival in run:
        here.accept(arrival.chunk, arrival.observed_ns, arrival.now_ns)
        there.accept(arrival.chunk, arrival.observed_ns + origin, arrival.now_ns + origin)
        for ahead in range(0, 2_500 * MS, 330 * MS):
            now_ns = arrival.now_ns + ahead
            assert np.array_equal(here.reference(now_ns), there.reference(now_ns + origin))
    assert here.counters == there.counters


@in_every_mode
@given(run=arrivals())
@some
def test_the_gripper_keeps_to_its_stroke_and_between_joins_to_its_speed(
    mode: str, run: list[Arrival]
) -> None:
    scheduler = make_scheduler(mode)
    for arrival in run:
        scheduler.accept(arrival.chunk, arrival.observed_ns, arrival.now_ns)
        for now_ns in range(arrival.now_ns, arrival.now_ns + 2_500 * MS, 60 * MS):
            position, _ = scheduler.reference(now_ns)
            assert -1e-12 <= position[2] <= 0.08 + 1e-12
    assume(scheduler.joins)
    for now_ns in range(scheduler.joins_ns[-1] + 20 * PERIOD_NS, scheduler.rest_ns, 10 * MS):
        assert abs(scheduler.reference(now_ns)[1][2]) <= 0.1 + 1e-9


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.001, 0.02, 1.0]), closing=st.booleans())
@some
def test_a_gripper_that_closes_does_not_open_on_the_way(seed: int, scale: float, closing: bool) -> None:
    scheduler = make_scheduler()
    grip = np.cumsum(np.random.default_rng(seed).exponential(scale, size=16))
    chunk = np.zeros((16, 3))
    chunk[:, 2] = 0.03 - grip if closing else 0.03 + grip
    scheduler.accept(chunk, 0, 70 * MS)
    opening = np.array([scheduler.reference(at)[0][2] for at in range(70 * MS, 2_500 * MS, 10 * MS)])
    assert (np.diff(-opening if closing else opening) >= -1e-12).all()
    assert opening.min() >= min(0.03, chunk[-1, 2], 0.08) - 1e-12 or opening.min() >= 0
    assert opening.max() <= max(0.03, chunk[-1, 2]) + 1e-12


@in_every_mode
@given(seed=st.integers(0, 2**32 - 1), delays=st.lists(st.integers(0, 600), min_size=2, max_size=4))
@some
def test_chunks_of_one_trajectory_are_followed_as_one(mode: str, seed: int, delays: list[int]) -> None:
    rng = np.random.default_rng(seed)
    whole = np.cumsum(rng.normal(scale=0.002, size=(16 + 3 * len(delays), 3)), axis=0)
    whole += np.array([0.1, 0.2, 0.04])
    scheduler, now_ns = make_scheduler(mode), 0
    scheduler.reset(whole[0], 0)
    for i, delay in enumerate(delays):
        observed_ns = 3 * i * PERIOD_NS
        now_ns = max(observed_ns + delay * MS, now_ns) if i else 0  # the first would be put off
        assert scheduler.accept(whole[3 * i : 3 * i + 16], observed_ns, now_ns)
    end_ns = action_time_ns(14, 3 * (len(delays) - 1) * PERIOD_NS)
    for at_ns in range(max(now_ns, 600 * MS), end_ns, 30 * MS):
        place = np.array([(at_ns - action_time_ns(0, 0)) / PERIOD_NS])
        found, expected = scheduler.reference(at_ns)[0], slow_spline(whole, place)[0]
        np.testing.assert_allclose(found[:2], expected[:2], atol=1e-9)


@in_every_mode
@given(delay=st.integers(0, 1_200), pause=st.integers(0, 900))
@some
def test_an_arm_that_stands_still_starts_at_the_beginning(mode: str, delay: int, pause: int) -> None:
    """The first chunk, and one for an observation that was made after the arm had come to rest."""
    scheduler = make_scheduler(mode)
    chunk = np.array([0.1, 0.2, 0.03]) + 0.01 * np.arange(16)[:, None] * [1, 1, 0]
    observed_ns = 0
    for _ in range(2):
        start, now_ns = scheduler.reference(observed_ns)[0], observed_ns + delay * MS
        assert scheduler.accept(chunk - chunk[1] + start, observed_ns, now_ns)
        assert scheduler.covered_until_ns == action_time_ns(15, now_ns)
        assert np.array_equal(scheduler.reference(now_ns)[0], start)
        observed_ns = scheduler.rest_ns + pause * MS


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=80))
def test_delay_is_a_windowed_percentile_without_warmup(delays: list[int]) -> None:
    meter = DelayMeter(window=20, warmup=2)
    assert meter.p95_ns == 0
    for delay in delays:
        meter.add(delay)
    kept = delays[2:][-20:] or [delays[min(len(delays), 2) - 1]]
    assert meter.p95_ns == int(np.percentile(kept, 95))

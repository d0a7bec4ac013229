"""Whatever comes in, what goes out keeps the limits: judged by finite differences, one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import KINDS, adversary, moving_start, violations

from robopolicy.core.errors import ConfigError
from robopolicy.robots import load
from robopolicy.runtime import SafetyConfig, SafetyFilter

FR3, UR5E = load("fr3"), load("ur5e")
ROBOTS = {"fr3": FR3, "ur5e": UR5E}
RATES = [50.0, 100.0, 250.0, 500.0, 1000.0]


def margins(robot) -> SafetyConfig:
    """The joint limits alone."""
    return SafetyConfig(SafetyConfig.for_robot(robot).position_margin)


@given(
    seed=st.integers(0, 2**32 - 1),
    phases=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 40)), min_size=1, max_size=5),
    rate=st.sampled_from(RATES),
    name=st.sampled_from(sorted(ROBOTS)),
)
@settings(max_examples=60, deadline=None)
def test_no_adversary_gets_through(seed: int, phases: list, rate: float, name: str) -> None:
    rng, limits, config = np.random.default_rng(seed), ROBOTS[name].limits, margins(ROBOTS[name])
    position, velocity, push = moving_start(rng, limits, config.position_margin, 1 / rate)
    guard = SafetyFilter(limits, rate, config)
    guard.reset(position, velocity, push)
    v, a = velocity / rate, push / rate**2
    sent = [position - 2 * v + a, position - v, position]
    for kind, length in phases:
        target = position
        for k in range(length):
            if kind == "brake":
                sent.append(guard.brake())
                continue
            if kind != "jump" or k % 10 == 0:
                target = adversary(rng, kind, sent[-1], k, limits, 1 / rate)
            sent.append(guard.filter(target)[0])
            assert np.isfinite(sent[-1]).all()
    expected = guard.stop_path
    for command in expected:
        sent.append(guard.brake())
        np.testing.assert_allclose(sent[-1], command, atol=1e-12)
    assert guard.at_rest
    before_start = (" at 0", " at 1")  # the past need not have kept the position limits
    found = violations(sent, limits, config.position_margin, 1 / rate)
    assert not [f for f in found if not (f.startswith("position") and f.endswith(before_start))]


@given(seed=st.integers(0, 2**32 - 1), speed=st.floats(0.05, 0.9), name=st.sampled_from(sorted(ROBOTS)))
@settings(max_examples=20, deadline=None)
def test_smooth_admissible_motion_passes_unmodified(seed: int, speed: float, name: str) -> None:
    """Sines about the middle of the range, from rest, within velocity, acceleration and jerk."""
    rng, limits, dt = np.random.default_rng(seed), ROBOTS[name].limits, 0.01
    dim = len(limits.lower)
    middle, half = (limits.lower + limits.upper) / 2, (limits.upper - limits.lower) / 2
    amplitude = half * rng.uniform(0.1, 0.8, dim)
    fastest = np.minimum(limits.velocity / amplitude, np.sqrt(limits.acceleration / amplitude))
    # It begins with half its acceleration from one tick to the next.
    fastest = np.minimum(fastest, np.sqrt(limits.jerk * dt / amplitude))
    guard = SafetyFilter(limits, 100.0, margins(ROBOTS[name]))
    guard.reset(middle - amplitude)
    for k in range(1, 400):
        desired = middle - amplitude * np.cos(speed * fastest * k * dt)
        command, reasons = guard.filter(desired)
        assert np.array_equal(command, desired) and reasons == ()
    assert not guard.counts


@given(seed=st.integers(0, 2**32 - 1), rate=st.sampled_from(RATES), name=st.sampled_from(sorted(ROBOTS)))
@settings(max_examples=15, deadline=None)
def test_a_far_target_is_reached_without_overshoot(seed: int, rate: float, name: str) -> None:
    rng, limits, config = np.random.default_rng(seed), ROBOTS[name].limits, margins(ROBOTS[name])
    margin = np.array(config.position_margin)
    start, target = rng.uniform(limits.lower + margin, limits.upper - margin, (2, len(margin)))
    guard = SafetyFilter(limits, rate, config)
    guard.reset(start)
    left = np.abs(target - start)
    quickest = left / limits.velocity + 2 * np.sqrt(left / limits.acceleration)
    quickest += 6 * limits.acceleration / limits.jerk
    for _ in range(int(rate * (1.1 * np.max(quickest) + 0.1)) + 5):
        command, reasons = guard.filter(target)
        now = (target - command) * np.sign(target - start)
        assert (now <= left + 1e-9).all() and (now >= -1e-9).all()
        left = now
    assert np.array_equal(command, target) and reasons == ()


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["hold", "jump", "far", "drift"]))
@settings(max_examples=20, deadline=None)
def test_from_slightly_outside_it_only_ever_comes_in(seed: int, kind: str) -> None:
    rng, rate, limits, config = np.random.default_rng(seed), 100.0, FR3.limits, margins(FR3)
    lower, upper = limits.lower + config.position_margin, limits.upper - config.position_margin
    start = np.where(rng.random(8) < 0.5, lower - rng.uniform(0, 0.02, 8), upper + rng.uniform(0, 0.02, 8))
    guard = SafetyFilter(limits, rate, config)
    guard.reset(start)
    sent = [start, start, start]
    outside = np.maximum(lower - start, start - upper)
    for k in range(100):
        desired = start if kind == "hold" else adversary(rng, kind, sent[-1], k, limits, 1 / rate)
        sent.append(guard.filter(desired)[0])
        now = np.maximum(lower - sent[-1], sent[-1] - upper)
        assert (now <= np.maximum(outside, 0) + 1e-9).all()
        outside = now
    if kind == "hold":  # its own position is no reason to stay outside
        assert (outside <= 1e-9).all() and guard.counts["position"]
    found = violations(sent, limits, config.position_margin, 1 / rate)
    assert not [f for f in found if not f.startswith("position")]


@given(seed=st.integers(0, 2**32 - 1), rate=st.sampled_from(RATES), name=st.sampled_from(sorted(ROBOTS)))
@settings(max_examples=40, deadline=None)
def test_any_state_is_taken_or_refused_and_what_is_taken_stops(seed: int, rate: float, name: str) -> None:
    rng, limits, config = np.random.default_rng(seed), ROBOTS[name].limits, margins(ROBOTS[name])
    margin = np.array(config.position_margin)
    position = rng.uniform(limits.lower + margin, limits.upper - margin)
    velocity = rng.uniform(-1.1, 1.1, len(margin)) * limits.velocity * rng.uniform(0, 1) ** 2
    push = rng.uniform(-1, 1, len(margin)) * limits.acceleration * rng.choice([0.0, 0.3, 1.0])
    guard = SafetyFilter(limits, rate, config)
    try:
        guard.reset(position, velocity, push)
    except ConfigError:
        with pytest.raises(ConfigError, match="reset first"):
            guard.brake()
        return
    v, a = velocity / rate, push / rate**2
    sent = [position - 2 * v + a, position - v, position]
    while not guard.at_rest:
        sent.append(guard.brake())
    assert not violations(sent[2:], limits, config.position_margin, 1 / rate)
    assert not [f for f in violations(sent, limits, config.position_margin, 1 / rate) if "position" not in f]


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_a_surge_to_full_speed_is_checked_before_it_is_too_late(name: str) -> None:
    """Full acceleration until the velocity limit: each tick is within limits, but no stop after it is."""
    rate, limits, config = 1000.0, ROBOTS[name].limits, margins(ROBOTS[name])
    lower = limits.lower + config.position_margin
    for ticks in range(265, 800, 200):
        guard = SafetyFilter(limits, rate, config)
        guard.reset(lower)
        sent, push, speed, desired = [lower] * 3, 0 * lower, 0 * lower, lower
        if ticks / rate > 1.2 * np.max(limits.velocity / limits.acceleration):
            break
        for _ in range(ticks):
            push = np.minimum(push + limits.jerk / rate, limits.acceleration)
            speed = np.minimum(speed + push / rate, limits.velocity)
            desired = desired + speed / rate
            sent.append(guard.filter(desired)[0])
        while not guard.at_rest:
            sent.append(guard.brake())
        assert not violations(sent, limits, config.position_margin, 1 / rate)

"""Whatever comes in, what goes out keeps the limits: judged by finite differences, one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.core.robot import Limits
from robopolicy.robots import load
from robopolicy.runtime import SafetyConfig, SafetyFilter
from robopolicy.runtime.stopping import highest_speed, stopping_distance

FR3 = load("fr3")
MARGINS = SafetyConfig.for_robot(FR3)
TOLERANCE = 1e-6  # of each limit


def violations(sent: list, limits: Limits, margin: tuple[float, ...], dt: float) -> list[str]:
    """Slow and obvious: every dimension of every command against every limit."""
    found = []
    for d in range(len(limits.lower)):
        path = [float(command[d]) for command in sent]
        lower, upper = limits.lower[d] + margin[d], limits.upper[d] - margin[d]
        room = TOLERANCE * (upper - lower)
        for k in range(len(path)):
            if not lower - room <= path[k] <= upper + room:
                found.append(f"position {path[k]} of {d} at {k}")
            if k >= 1 and abs(path[k] - path[k - 1]) / dt > limits.velocity[d] * (1 + TOLERANCE):
                found.append(f"velocity of {d} at {k}")
            if k >= 2:
                acceleration = (path[k] - 2 * path[k - 1] + path[k - 2]) / dt**2
                if abs(acceleration) > limits.acceleration[d] * (1 + TOLERANCE):
                    found.append(f"acceleration {acceleration} of {d} at {k}")
    return found


def moving_start(rng: np.random.Generator, limits: Limits, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """A random position, and a velocity from which braking alone stays inside, found by trying it."""
    dim = len(limits.lower)
    margin = np.array(MARGINS.position_margin)
    position = rng.uniform(limits.lower + margin, limits.upper - margin)
    velocity = rng.uniform(-1, 1, dim) * limits.velocity
    for d in range(dim):
        while True:
            at, speed = position[d], velocity[d]
            while speed != 0.0:
                speed -= np.clip(speed, -limits.acceleration[d] * dt, limits.acceleration[d] * dt)
                at += speed * dt
            if limits.lower[d] + margin[d] <= at <= limits.upper[d] - margin[d]:
                break
            velocity[d] *= 0.7 if abs(velocity[d]) > 1e-3 else 0.0
    return position, velocity


def adversary(rng: np.random.Generator, kind: str, last: np.ndarray, k: int) -> np.ndarray:
    limits = FR3.limits
    if kind == "jump":
        return rng.uniform(limits.lower - 1, limits.upper + 1)
    if kind == "nan":
        return np.where(rng.random(8) < 0.3, rng.choice([np.nan, np.inf, -np.inf], 8), last)
    if kind == "far":
        return np.where(rng.random(8) < 0.5, 1e9, -1e9)
    if kind == "edge":
        return np.where(np.arange(8) % 2 == 0, limits.upper, limits.lower)
    if kind == "chatter":
        return last + rng.choice([-1, 1], 8) * limits.velocity * 0.01
    if kind == "drift":
        return last + limits.velocity * 0.0101
    return last + rng.normal(size=8) * 1e-3


KINDS = ["jump", "nan", "far", "edge", "chatter", "drift", "noise", "brake"]


@given(
    seed=st.integers(0, 2**32 - 1),
    phases=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 40)), min_size=1, max_size=6),
    rate=st.sampled_from([100.0, 250.0, 1000.0]),
)
@settings(max_examples=80, deadline=None)
def test_no_adversary_gets_through(seed: int, phases: list, rate: float) -> None:
    rng = np.random.default_rng(seed)
    position, velocity = moving_start(rng, FR3.limits, 1 / rate)
    guard = SafetyFilter(FR3.limits, rate, MARGINS)
    guard.reset(position, velocity)
    sent = [position - velocity / rate, position]
    first_in_box = all(
        (sent[0] >= FR3.limits.lower + MARGINS.position_margin)
        & (sent[0] <= FR3.limits.upper - MARGINS.position_margin)
    )
    for kind, length in phases:
        target = adversary(rng, kind, position, 0) if kind != "brake" else position
        for k in range(length):
            if kind == "brake":
                sent.append(guard.brake())
                continue
            if kind != "jump" or k % 10 == 0:
                target = adversary(rng, kind, sent[-1], k)
            sent.append(guard.filter(target)[0])
    for _ in range(round(rate)):
        sent.append(guard.brake())
    assert guard.at_rest
    found = violations(sent, FR3.limits, MARGINS.position_margin, 1 / rate)
    assert not [f for f in found if first_in_box or not f.endswith(" at 0")]


@given(seed=st.integers(0, 2**32 - 1), speed=st.floats(0.05, 0.9))
@settings(max_examples=40, deadline=None)
def test_smooth_admissible_motion_passes_unmodified(seed: int, speed: float) -> None:
    """Sines about the middle of the range, from rest, with velocity and acceleration within limits."""
    rng, limits, dt = np.random.default_rng(seed), FR3.limits, 0.01
    middle, half = (limits.lower + limits.upper) / 2, (limits.upper - limits.lower) / 2
    amplitude = half * rng.uniform(0.1, 0.8, 8)
    omega = speed * np.minimum(limits.velocity / amplitude, np.sqrt(limits.acceleration / amplitude))
    guard = SafetyFilter(limits, 100.0, MARGINS)
    guard.reset(middle - amplitude)
    for k in range(1, 400):
        desired = middle - amplitude * np.cos(omega * k * dt)
        command, reasons = guard.filter(desired)
        assert np.array_equal(command, desired) and reasons == ()
    assert not guard.counts


def test_catches_up_with_a_moving_reference_and_lets_it_through_again() -> None:
    start = np.array([*FR3.home, 0.04])
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    guard.reset(start)
    for k in range(150):
        desired = start + np.array([0.3 + 0.4 * np.sin(0.02 * k)] * 7 + [0.0])
        command, reasons = guard.filter(desired)
    assert np.array_equal(command, desired) and reasons == ()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_far_target_is_reached_without_overshoot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lower, upper = guard_range()
    start, target = rng.uniform(lower, upper), rng.uniform(lower, upper)
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    guard.reset(start)
    left = np.abs(target - start)
    for _ in range(400):
        command, reasons = guard.filter(target)
        now = (target - command) * np.sign(target - start)
        assert (now <= left + 1e-9).all() and (now >= -1e-9).all()
        left = now
    assert np.array_equal(command, target) and reasons == ()


def guard_range() -> tuple[np.ndarray, np.ndarray]:
    margin = np.array(MARGINS.position_margin)
    return FR3.limits.lower + margin, FR3.limits.upper - margin


def test_a_bad_gripper_does_not_disturb_the_arm() -> None:
    start = np.array([*FR3.home, 0.08])
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    guard.reset(start)
    for k in range(1, 100):
        desired = start + 1e-5 * k**1.5
        desired[7] = 0.0
        command, _ = guard.filter(desired)
        assert np.array_equal(command[:7], desired[:7])
    assert command[7] == 0.0 and {"velocity", "acceleration"} <= set(guard.counts)


@pytest.mark.parametrize(
    ("desired", "reason"),
    [(np.nan, "non_finite"), (3.0, "position"), (2.5, "velocity"), (0.01, "acceleration")],
)
def test_each_reason_is_named_and_counted(desired: float, reason: str) -> None:
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    start = np.array([*FR3.home, 0.04])
    guard.reset(start)
    command = start.copy()
    command[0] = desired
    assert reason in guard.filter(command)[1]
    assert guard.counts[reason] == 1


def test_a_command_that_could_not_stop_in_time_is_named() -> None:
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    start = np.array([*FR3.home, 0.04])
    start[0] = 2.5
    guard.reset(start)
    reasons: set[str] = set()
    for k in range(1, 60):
        desired = start.copy()
        desired[0] = min(start[0] + 4.9 * (k * 0.01) ** 2, 2.7)
        reasons.update(guard.filter(desired)[1])
    assert "stopping" in reasons


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_braking_is_as_short_as_the_limits_allow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    position, velocity = moving_start(rng, FR3.limits, 0.01)
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    guard.reset(position, velocity)
    ticks = 0
    while not guard.at_rest:
        guard.brake()
        ticks += 1
    shortest = np.max(np.abs(velocity) / FR3.limits.acceleration)
    assert ticks <= np.ceil(shortest / 0.01 - 1e-9)


def test_a_start_outside_the_limits_is_left_inwards_only() -> None:
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    outside = np.array([2.80, *FR3.home[1:], 0.04])
    guard.reset(outside)
    desired = outside.copy()
    desired[0] = 2.81
    assert guard.filter(desired)[0][0] <= 2.80
    before = 2.80
    desired[0] = 2.0
    for _ in range(100):
        now = guard.filter(desired)[0][0]
        assert now <= before
        before = now
    assert before == 2.0


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["hold", "jump", "far", "drift"]))
@settings(max_examples=40, deadline=None)
def test_from_slightly_outside_it_only_ever_comes_in(seed: int, kind: str) -> None:
    rng, rate = np.random.default_rng(seed), 100.0
    lower, upper = guard_range()
    start = np.where(rng.random(8) < 0.5, lower - rng.uniform(0, 0.02, 8), upper + rng.uniform(0, 0.02, 8))
    guard = SafetyFilter(FR3.limits, rate, MARGINS)
    guard.reset(start)
    sent = [start, start]
    outside = np.maximum(lower - start, start - upper)
    for k in range(100):
        desired = start if kind == "hold" else adversary(rng, kind, sent[-1], k)
        sent.append(guard.filter(desired)[0])
        now = np.maximum(lower - sent[-1], sent[-1] - upper)
        assert (now <= np.maximum(outside, 0) + 1e-9).all()
        outside = now
    if kind == "hold":  # its own position is no reason to stay outside
        assert (outside <= 1e-9).all() and guard.counts["position"]
    found = violations(sent, FR3.limits, MARGINS.position_margin, 1 / rate)
    assert not [f for f in found if not f.startswith("position")]


def test_an_arm_outside_may_be_on_its_way_in() -> None:
    guard = SafetyFilter(FR3.limits, 100.0, MARGINS)
    outside, inwards = np.array([2.80, *FR3.home[1:], 0.04]), np.array([-0.1, *[0.0] * 7])
    guard.reset(outside, inwards)
    assert guard.filter(outside - [0.5, *[0.0] * 7])[0][0] < 2.80
    with pytest.raises(ConfigError, match="too fast to stop"):
        guard.reset(outside, -inwards)


@given(st.floats(0, 10), st.floats(0.1, 50), st.sampled_from([0.001, 0.01]))
def test_highest_speed_inverts_stopping_distance(speed: float, acceleration: float, dt: float) -> None:
    v, a = np.array([speed]), np.array([acceleration])
    distance, left = 0.0, speed
    while left > 0:
        distance += left * dt
        left -= acceleration * dt
    np.testing.assert_allclose(stopping_distance(v, a, dt)[0], distance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(highest_speed(stopping_distance(v, a, dt), a, dt), v, rtol=1e-6, atol=1e-9)


def test_bad_set_up_is_refused() -> None:
    start = np.array([*FR3.home, 0.04])
    with pytest.raises(ConfigError, match="8 position margins"):
        SafetyFilter(FR3.limits, 100.0, SafetyConfig((0.1,)))
    with pytest.raises(ConfigError, match="no range"):
        SafetyFilter(FR3.limits, 100.0, SafetyConfig((9.0,) * 8))
    guard = SafetyFilter(FR3.limits, 100.0)
    with pytest.raises(ConfigError, match="reset first"):
        guard.filter(start)
    with pytest.raises(NonFiniteValueError, match="nan"):
        guard.reset(np.full(8, np.nan))
    with pytest.raises(ConfigError, match="too fast to stop"):
        guard.reset(start, np.full(8, 10.0))
    guard.reset(start)
    with pytest.raises(ShapeError, match="8"):
        guard.filter(start[:7])

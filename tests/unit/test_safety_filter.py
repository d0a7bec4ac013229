"""What the safety filter says, remembers and refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError
from robopolicy.robots import load
from robopolicy.runtime.safety.deadman import Deadman
from robopolicy.runtime.safety.filter import REASONS, SafetyConfig, SafetyFilter
from robopolicy.runtime.safety.tracking import JerkLimitedTracker

FR3 = load("fr3")
MARGINS = SafetyConfig(SafetyConfig.for_robot(FR3).position_margin)
START = np.array([*FR3.home, 0.04])


@pytest.fixture
def guard() -> SafetyFilter:
    result = SafetyFilter(FR3.limits, 100.0, MARGINS)
    result.reset(START)
    return result


def moving(guard: SafetyFilter, ticks: int = 60) -> np.ndarray:
    """Run a smooth motion through it; the last command."""
    for k in range(1, ticks):
        command, reasons = guard.filter(START + 0.2 * (1 - np.cos(0.03 * k)) * np.array([1.0] * 7 + [0.0]))
        assert not reasons
    return command


@pytest.mark.parametrize(
    ("desired", "reason"),
    [(np.nan, "non_finite"), (3.0, "position"), (2.5, "velocity"), (0.01, "acceleration")],
)
def test_each_reason_is_named_and_counted(guard: SafetyFilter, desired: float, reason: str) -> None:
    command = START.copy()
    command[0] = desired
    assert reason in guard.filter(command)[1]
    assert guard.counts[reason] == 1 and set(guard.counts) <= set(REASONS)


def test_too_much_jerk_is_named() -> None:
    guard = SafetyFilter(FR3.limits, 1000.0, MARGINS)  # here 10 rad/s^2 takes two ticks to build up
    guard.reset(START)
    command = START.copy()
    command[0] += 8e-6
    sent, reasons = guard.filter(command)
    assert reasons == ("jerk",) and 0 < sent[0] < command[0]


def test_a_command_that_could_not_stop_in_time_is_named(guard: SafetyFilter) -> None:
    start = START.copy()
    start[0] = 2.5
    guard.reset(start)
    reasons: set[str] = set()
    for k in range(1, 60):
        desired = start.copy()
        desired[0] = min(2.5 + 5e-4 * k * k, 2.73)  # 10 rad/s^2
        reasons |= set(guard.filter(desired)[1])
    assert "stopping" in reasons


def test_a_gripper_at_exactly_its_velocity_limit_passes(guard: SafetyFilter) -> None:
    limits, desired = FR3.limits, START.copy()
    speed = 0.0
    for _ in range(30):
        speed = min(speed + limits.acceleration[7] * 0.01, limits.velocity[7])
        desired = desired - np.array([0.0] * 7 + [speed * 0.01])
        if desired[7] < 0.003:
            break
        command, reasons = guard.filter(desired)
        assert reasons == () and np.array_equal(command, desired)
    assert speed == limits.velocity[7]


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


def test_catches_up_with_a_moving_reference_and_lets_it_through_again(guard: SafetyFilter) -> None:
    for k in range(150):
        desired = START + np.array([0.3 + 0.4 * np.sin(0.02 * k)] * 7 + [0.0])
        command, reasons = guard.filter(desired)
    assert np.array_equal(command, desired) and reasons == ()


def test_braking_begins_at_once_and_is_what_the_stop_path_said(guard: SafetyFilter) -> None:
    last, before = moving(guard), guard.position
    path, seconds = guard.stop_path, guard.stop_time_s
    assert len(path) == round(seconds * 100) > 3
    sent = []
    while not guard.at_rest:
        sent.append(guard.brake())
    # The last tick of a path repeats the one before.
    np.testing.assert_allclose(sent, path[: len(sent)], atol=1e-12)
    assert len(sent) >= len(path) - 1 and np.array_equal(last, before)
    assert abs(sent[0] - before).max() < abs(before - guard.position).max()
    assert guard.stop_path.shape[1] == 8 and np.array_equal(guard.brake(), sent[-1])


def test_a_trip_brakes_on_the_next_tick_and_holds_until_it_is_cleared(guard: SafetyFilter) -> None:
    moving(guard)
    expected = guard.stop_path
    guard.trip("e_stop")
    guard.trip("second")
    assert guard.latched == "e_stop" and guard.counts["e_stop"] == 1 and not guard.counts["second"]
    with pytest.raises(ConfigError, match=r"e_stop.*not at rest"):
        guard.clear_latch()
    for command in expected:
        sent, reasons = guard.filter(START + 0.3)
        np.testing.assert_allclose(sent, command, atol=1e-12)
        assert reasons == ("latched",)
    assert guard.at_rest
    guard.reset(guard.position)
    assert guard.latched == "e_stop"  # only a person clears it
    guard.clear_latch()
    assert guard.latched == "" and guard.filter(guard.position)[1] == ()


def test_an_arm_that_is_not_where_it_was_told_trips() -> None:
    guard = SafetyFilter(FR3.limits, 100.0, SafetyConfig.for_robot(FR3))
    guard.reset(START)
    measured = START.copy()
    measured[7] = 0.0  # holding something
    measured[2] += 0.15
    assert guard.filter(START, measured=measured)[1] == ()
    measured[2] += 0.05
    assert guard.filter(START, measured=measured)[1] == ("tracking_error",)
    assert guard.latched == "tracking_error"
    assert guard.filter(START, measured=START)[1] == ("latched",)
    guard.clear_latch()
    measured[2] = np.nan
    assert guard.filter(START, measured=measured)[1] == ("tracking_error",)


def test_a_stale_observation_brakes_while_it_is_stale() -> None:
    guard = SafetyFilter(FR3.limits, 100.0, dataclasses.replace(MARGINS, observation_age_s=0.3))
    guard.reset(START)
    desired = START + 1e-4
    assert guard.filter(desired, observation_age_s=0.3)[1] == ()
    expected = guard.stop_path
    assert guard.filter(desired + 2e-4, observation_age_s=0.31)[1] == ("stale_observation",)
    np.testing.assert_allclose(guard.position, expected[0], atol=1e-15)
    assert guard.filter(desired, observation_age_s=np.nan)[1] == ("stale_observation",)
    for _ in range(50):
        command, reasons = guard.filter(desired, observation_age_s=0.1)
    assert reasons == () and np.array_equal(command, desired) and guard.latched == ""


def test_an_observation_from_the_future_brakes_like_a_stale_one() -> None:
    guard = SafetyFilter(FR3.limits, 100.0, dataclasses.replace(MARGINS, observation_age_s=0.5))
    guard.reset(START)
    for age_s, reasons in [(-0.0099, ()), (-0.0101, ("stale_observation",)), (-1e9, ("stale_observation",))]:
        assert guard.filter(START, observation_age_s=age_s)[1] == reasons
    unbounded = SafetyFilter(FR3.limits, 100.0, MARGINS)
    unbounded.reset(START)
    assert unbounded.filter(START, observation_age_s=-1.0)[1] == ("stale_observation",)


def test_a_measurement_of_another_shape_is_refused(guard: SafetyFilter) -> None:
    with pytest.raises(ShapeError, match=r"measured in 8 dimensions, got \(1,\)"):
        guard.filter(START, measured=np.zeros(1))


def test_several_faults_are_all_named_in_order(guard: SafetyFilter) -> None:
    guard.trip("e_stop")
    assert guard.filter(np.full(8, np.inf))[1] == ("non_finite", "latched")


def test_a_start_outside_the_limits_is_left_inwards_only(guard: SafetyFilter) -> None:
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


def test_an_arm_outside_may_be_on_its_way_in(guard: SafetyFilter) -> None:
    outside, inwards = np.array([2.80, *FR3.home[1:], 0.04]), np.array([-0.1, *[0.0] * 7])
    guard.reset(outside, inwards)
    assert guard.filter(outside - [0.5, *[0.0] * 7])[0][0] < 2.80
    with pytest.raises(ConfigError, match="too fast to stop"):
        guard.reset(outside, -3 * inwards)


def test_bad_set_up_is_refused(guard: SafetyFilter) -> None:
    with pytest.raises(ConfigError, match="8 position margins"):
        SafetyFilter(FR3.limits, 100.0, SafetyConfig((0.1,)))
    with pytest.raises(ConfigError, match="8 thresholds"):
        SafetyFilter(FR3.limits, 100.0, SafetyConfig(tracking_error=(0.1,)))
    with pytest.raises(ConfigError, match="no range"):
        SafetyFilter(FR3.limits, 100.0, SafetyConfig((9.0,) * 8))
    with pytest.raises(ConfigError, match="7 dimensions"):
        SafetyFilter(FR3.limits, 100.0, SafetyConfig(robot=load("ur5e")))
    with pytest.raises(ConfigError, match="positive"):
        SafetyConfig(tool_speed=0.0)
    with pytest.raises(ConfigError, match="enclosure_lower"):
        SafetyConfig(enclosure_lower=(0.0, 0.0, np.inf))
    fresh = SafetyFilter(FR3.limits, 100.0)
    assert not fresh.at_rest
    for call in (lambda: fresh.filter(START), fresh.brake, lambda: fresh.stop_path, lambda: fresh.position):
        with pytest.raises(ConfigError, match="reset first"):
            call()
    with pytest.raises(NonFiniteValueError, match="nan"):
        guard.reset(np.full(8, np.nan))
    with pytest.raises(ConfigError, match="too fast to stop"):
        guard.reset(START, np.full(8, 10.0))
    with pytest.raises(ConfigError, match="too fast to stop"):
        guard.reset(START, None, np.full(8, 11.0))
    assert np.array_equal(guard.position, START)  # a refused start changes nothing
    with pytest.raises(ShapeError, match="8"):
        guard.filter(START[:7])


def test_a_deadman_is_held_from_a_press_until_it_times_out() -> None:
    deadman, second = Deadman(0.5), 1_000_000_000
    assert not deadman.held(second)
    deadman.press(second)
    assert deadman.held(second) and deadman.held(second + second // 2)
    assert not deadman.held(second + second // 2 + 1)
    assert not deadman.held(second - 1)  # the clock went back
    deadman.press(3 * second)
    deadman.release()
    assert not deadman.held(3 * second)
    with pytest.raises(ConfigError, match="positive"):
        Deadman(0.0)


def test_a_distance_that_ruckig_cannot_plan_does_not_reach_the_control_loop() -> None:
    """Found by benchmarks/safety_fuzz.py: from rest, where two kinds of profile meet within rounding."""
    tracker, still = JerkLimitedTracker(FR3.limits, 0.001), np.zeros(8)
    start, target = np.full(8, -7.760000000001099e-05), still
    tracker.go_on(np.ones(8, dtype=np.bool_), still, still)
    step = tracker.step(start, target, still)
    assert step is not None and (step > start).all()
    # Too far to be planned at all: nothing is raised, and the filter brakes.
    assert tracker.step(start, target + 1.0, still, np.full(8, 1e-5)) is None

"""Missed ticks: an arm that stopped meanwhile goes on from rest, one that moves on keeps its speed."""

from __future__ import annotations

import numpy as np
import pytest
from fault_rig import AT, TICK, FaultRig
from test_runtime_runner import LIMITS, MS, assert_stopped

from robopolicy.core.errors import ConfigError
from robopolicy.runtime.control.hold_up import HoldUp

STEP = np.array([0.01, -0.01, 0.0])  # 1 rad/s at 100 Hz


def missed(ticks: float, *, lag: float = 0.0, offset: float = 0.0, glides: bool = False) -> int:
    """``stood_ns`` after a motion at 1 rad/s, in which the last command was followed by no other for so many
    ticks; the arm lags behind by ``lag`` [ticks] and is off by ``offset`` of a step for good."""
    hold_up = HoldUp(TICK)

    def where(at: float) -> np.ndarray:
        return STEP * ((at if glides else min(at - lag, 10)) + offset)

    for k in range(11):  # the command of tick k is k steps, reached at k + 1
        assert hold_up.stood_ns(where(k), k * TICK) == 0
        hold_up.sent(STEP * k)
    return hold_up.stood_ns(where(10 + ticks), round((10 + ticks) * TICK))


def test_a_servo_stops_at_its_last_command_and_lateness_is_no_hold_up() -> None:
    assert missed(1.4) == 0
    assert missed(2) == 2 * TICK and missed(49) == 49 * TICK
    assert missed(49, offset=3.0) == 49 * TICK  # a load it does not know
    assert missed(49, lag=5) == 49 * TICK


def test_an_arm_that_moves_on_keeps_its_speed() -> None:
    assert missed(3, lag=5) == 0  # it is still on its way to the last command
    assert missed(49, glides=True) == 0


def test_nothing_is_said_of_an_arm_at_rest_or_unknown() -> None:
    hold_up = HoldUp(TICK)
    with pytest.raises(ConfigError, match="nothing was sent"):
        hold_up.rest()
    for k in range(3):
        assert hold_up.stood_ns(STEP, 50 * k * TICK) == 0
        hold_up.sent(STEP)
    hold_up.sent(2 * STEP)
    assert hold_up.stood_ns(np.full(3, np.nan), 10**12) == 0  # not known to stand
    assert np.array_equal(hold_up.rest(), 2 * STEP) and hold_up.stood_ns(STEP, 2 * 10**12) == 0


@pytest.mark.parametrize("seconds", [0.02, 0.045, 0.3, 0.49])
def test_after_a_hold_up_the_arm_starts_from_rest(seconds: float) -> None:
    rig = FaultRig()
    result = rig.run(
        lambda rig: setattr(rig.time, "now_ns", rig.time.now_ns + round(seconds * 1e9)), clock_jump_s=0.5
    )
    assert result.reason == "duration" and result.missed_ticks > 0
    velocity = np.diff(rig.plant.sent, axis=0) / 0.01
    assert velocity[AT - 1, 0] == pytest.approx(1.0, abs=0.05)
    assert np.abs(velocity[AT, :2]).max() <= LIMITS.acceleration[0] * 0.01 * (1 + 1e-9)
    if seconds > 0.1:  # the plan is dropped, not caught up with
        assert (velocity[AT : AT + 4] == 0).all()  # until there is another
        assert velocity[AT:, 0].max() == pytest.approx(velocity[:AT, 0].max(), abs=0.01)
    rig.plant.sent[AT + 1 : AT + 1] = [rig.plant.sent[AT]] * 3  # where it stood meanwhile
    assert_stopped(rig.plant, since=AT + 1)


def test_a_jump_that_the_arm_stood_through_ends_without_a_move() -> None:
    for seconds in (0.08, 60.0):
        rig = FaultRig()
        result = rig.run(lambda rig, s=seconds: setattr(rig.time, "now_ns", rig.time.now_ns + round(s * 1e9)))
        assert result.fault and result.faults == {"clock_jump": 1} and rig.safety.at_rest
        assert result.ticks == AT + 1 and len(result.commands) == AT + 2
        assert np.array_equal(rig.plant.sent[-1], rig.plant.sent[-2])  # told once more to stay


def test_a_hold_up_while_braking_does_not_throw_the_arm_either() -> None:
    rig = FaultRig()
    command = rig.plant.command

    def slow(position: np.ndarray) -> None:
        command(position)
        rig.time.now_ns += 45 * MS if len(rig.plant.sent) == AT + 4 else 0

    rig.plant.command = slow  # type: ignore[method-assign]
    rig.run(lambda rig: setattr(rig.client, "dead", True))
    assert len(rig.plant.sent) == AT + 5 and rig.safety.at_rest
    assert np.array_equal(rig.plant.sent[-1], rig.plant.sent[-2])

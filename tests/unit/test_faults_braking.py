"""Braking goes on through a driver's errors, for as long as the limits need; stamps that forbid moving."""

from __future__ import annotations

import numpy as np
import pytest
from fault_rig import AT, PERIOD, TICK, FaultRig
from test_runtime_runner import LIMITS, Rig, assert_stopped

from robopolicy.core.plant import Stamped
from robopolicy.runtime import SafetyConfig, SafetyFilter
from robopolicy.runtime.control.hold_up import HoldUp


def fail_at(rig: FaultRig, *calls: int) -> list[int]:
    """Make those calls of the driver's ``command`` fail; the calls are counted in what is returned."""
    command, count = rig.plant.command, [0]

    def broken(position: np.ndarray) -> None:
        count[0] += 1
        if count[0] in calls:
            raise OSError(f"timeout {count[0]}")
        command(position)

    rig.plant.command = broken  # type: ignore[method-assign]
    return count


def test_a_driver_error_while_braking_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that goes on by itself gets what was refused a tick later, and not two steps at once."""
    monkeypatch.setattr(HoldUp, "stood_ns", lambda self, measured, now_ns: 0)
    rig, whole = FaultRig(), FaultRig()
    fail_at(rig, AT, AT + 3)
    with pytest.raises(OSError, match=f"timeout {AT}$"):
        rig.run(lambda rig: None)
    with pytest.raises(ZeroDivisionError):
        whole.run(lambda rig: 1 // 0)
    assert rig.safety.at_rest and len(rig.plant.sent) > AT + 5
    assert_stopped(rig.plant)


def test_the_first_failure_while_braking_is_raised_once_the_arm_is_at_rest() -> None:
    rig = FaultRig()
    count = fail_at(rig, AT + 3, AT + 4)
    with pytest.raises(OSError, match=f"timeout {AT + 3}"):
        rig.run(lambda rig: setattr(rig.client, "dead", True))
    assert rig.safety.at_rest and count[0] == AT + 5  # it stood meanwhile, where it was sent last
    assert np.array_equal(rig.plant.sent[-1], rig.plant.sent[-2])


def test_a_driver_that_stays_broken_is_tried_until_time_is_up() -> None:
    rig = FaultRig()
    count = fail_at(rig, *range(AT, 10_000))

    def blind() -> np.ndarray:
        if count[0] >= AT:
            raise OSError("no answer")
        return rig.plant.position.copy()

    rig.plant.measured = blind  # type: ignore[method-assign]
    with pytest.raises(OSError, match=f"timeout {AT}$"):
        rig.run(lambda rig: None, stop_s=1.0)
    assert 95 <= count[0] - AT <= 101


def test_braking_lasts_as_long_as_the_limits_need() -> None:
    rig = FaultRig()
    result = rig.run(lambda rig: setattr(rig.client, "dead", True), stop_s=0.05)
    assert rig.safety.at_rest and result.faults == {"worker": 1}
    assert_stopped(rig.plant)


def test_braking_that_does_not_end_is_a_fault() -> None:
    class Restless(SafetyFilter):
        at_rest = False  # type: ignore[assignment]

    rig = FaultRig()
    rig.safety = Restless(LIMITS, 100.0)
    result = rig.run(lambda rig: None, duration_s=0.5)
    assert result.fault and result.reason == "duration; and not at rest after braking"
    assert result.faults == {"not_at_rest": 1} and len(result.commands) == 50 + 200


@pytest.mark.parametrize("ahead_s", [0.011, 1.0, 5.0, 1e9])
@pytest.mark.parametrize("tick", [0, 100])
def test_a_stamp_in_the_future_is_a_fault_before_it_moves_anything(ahead_s: float, tick: int) -> None:
    rig = Rig()

    def observe() -> dict[str, Stamped]:
        ahead_ns = round(ahead_s * 1e9) if len(rig.plant.sent) >= tick else 0
        return {"q": Stamped(rig.plant.position.astype(np.float32), rig.time.now_ns + ahead_ns)}

    rig.plant.observe = observe  # type: ignore[method-assign]
    result = rig.run(10.0)
    assert result.fault and result.faults == {"observation": 1}
    assert f"'q' lies {ahead_s:.3f} s in the future: is it on the loop's clock?" in result.reason
    assert result.ticks == tick and len(rig.client.requests) == (2 if tick else 0)
    assert np.abs(result.references).max(initial=0.0) < 1.0
    if tick:
        assert_stopped(rig.plant)


def test_a_stamp_just_ahead_is_taken() -> None:
    rig = Rig()
    rig.plant.observe = lambda: {  # type: ignore[method-assign]
        "q": Stamped(rig.plant.position.astype(np.float32), rig.time.now_ns + TICK)
    }
    assert rig.run(1.0).reason == "duration"


def test_observations_that_are_always_too_old_are_a_fault() -> None:
    rig = Rig()
    rig.safety = SafetyFilter(LIMITS, 100.0, SafetyConfig(observation_age_s=0.5))
    rig.plant.observe = lambda: {  # type: ignore[method-assign]
        "q": Stamped(rig.plant.position.astype(np.float32), rig.time.now_ns - 7 * PERIOD)
    }
    result = rig.run(5.0)
    assert result.fault and result.faults == {"stale_observation": 1} and "0.7" in result.reason
    assert 50 <= result.ticks <= 53

"""What watches the sensors and the clock; every instant is passed in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fault_rig import NORMALISERS, PERIOD, SPECS
from test_runtime_runner import LIMITS, MS

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.plant import Stamped
from robopolicy.core.robot import Limits
from robopolicy.runtime.control.faults import FaultError
from robopolicy.runtime.control.monitors import MonitorConfig, Monitors
from robopolicy.runtime.control.ticker import Ticker

HOME = np.array([0.1, -0.1, 0.04])
PICTURE = np.zeros((2, 2, 3), dtype=np.uint8)


def stamped(
    q_ns: int, camera_ns: int, q: np.ndarray = HOME, picture: np.ndarray = PICTURE
) -> dict[str, Stamped]:
    return {"q": Stamped(q, q_ns), "camera": Stamped(picture, camera_ns)}


def test_a_camera_slower_than_the_policy_by_a_little_is_not_frozen() -> None:
    monitors = Monitors(SPECS)
    for k in range(200):  # 9 Hz: now and then a picture is seen twice
        now = k * PERIOD
        monitors.observed(stamped(now, now // (111 * MS) * 111 * MS), HOME, now)


def test_a_stamp_that_stands_still_is_frozen_after_one_and_a_half_periods() -> None:
    monitors = Monitors(SPECS)
    for k in range(5):
        monitors.observed(stamped(k * PERIOD, k * PERIOD), HOME, k * PERIOD)
    monitors.observed(stamped(5 * PERIOD, 4 * PERIOD), HOME, 5 * PERIOD)
    with pytest.raises(
        FaultError, match=r"'camera' is frozen: its stamp stands still for 0\.200 s"
    ) as caught:
        monitors.observed(stamped(6 * PERIOD, 4 * PERIOD), HOME, 6 * PERIOD)
    assert caught.value.kind == "camera_frozen"


def test_at_the_start_there_is_patience_and_a_clock_set_back_is_not_a_frozen_sensor() -> None:
    monitors = Monitors(SPECS, MonitorConfig(start_s=0.5))
    for k in range(6):
        monitors.observed(stamped(k * PERIOD, 7), HOME, k * PERIOD)
    with pytest.raises(FaultError, match="camera"):
        monitors.observed(stamped(6 * PERIOD, 7), HOME, 6 * PERIOD)
    monitors.reset(0)
    for k in range(9):
        camera_ns = k * PERIOD - (10**12 if k >= 5 else 0)
        monitors.observed(stamped(k * PERIOD, camera_ns), HOME, k * PERIOD)


def test_still_pixels_are_no_fault_unless_asked() -> None:
    usual, strict = Monitors(SPECS), Monitors(SPECS, MonitorConfig(still_periods=3))
    for k in range(4):
        for monitors in (usual, strict):
            monitors.observed(stamped(k * PERIOD, k * PERIOD), HOME, k * PERIOD)
    for monitors in (usual, strict):
        noisy = stamped(4 * PERIOD, 4 * PERIOD, picture=PICTURE + np.uint8(1))
        monitors.observed(noisy, HOME, 4 * PERIOD)
    for k in range(5, 8):
        strict.observed(stamped(k * PERIOD, k * PERIOD, picture=PICTURE + np.uint8(1)), HOME, k * PERIOD)
    with pytest.raises(FaultError, match="not one pixel"):
        strict.observed(stamped(8 * PERIOD, 8 * PERIOD, picture=PICTURE + np.uint8(1)), HOME, 8 * PERIOD)


def test_joints_that_do_not_follow_are_stuck_but_resting_ones_are_not() -> None:
    monitors = Monitors(SPECS)
    for k in range(1000):
        monitors.moved(HOME, HOME + 0.02, k * 10 * MS)  # held off by a contact
    monitors.reset(0)
    for k in range(100):  # following with noise
        monitors.moved(HOME + k * 0.001 + 1e-9 * (k % 3), HOME + k * 0.002, k * 10 * MS)
    with pytest.raises(FaultError, match=r"to the last bit for 0\.160 s, while the commands moved by"):
        for k in range(100):
            monitors.moved(HOME, HOME + k * 0.005, (2000 + k * 10) * MS)


def test_a_driver_that_fills_one_buffer_again_and_again_is_not_stuck() -> None:
    monitors, buffer = Monitors(SPECS), HOME.copy()
    for k in range(100):
        buffer[:] = HOME + k * 0.005
        monitors.moved(buffer, buffer.copy(), k * 10 * MS)


def test_observations_that_stay_too_old_are_a_fault() -> None:
    monitors, off = Monitors(SPECS), Monitors(SPECS, MonitorConfig(stale_periods=0))
    stale = ("stale_observation",)
    for k in range(200):  # coming and going
        monitors.filtered(stale if k % 50 else (), 0.7, k * 10 * MS)
    monitors.reset(0)
    for k in range(51):
        monitors.filtered(stale, 0.7, k * 10 * MS)
        off.filtered(stale, 0.7, k * 1000 * MS)
    with pytest.raises(FaultError, match=r"too old to move for 0\.510 s, now by 0\.700 s") as caught:
        monitors.filtered(stale, 0.7, 510 * MS)
    assert caught.value.kind == "stale_observation"


def test_a_fault_may_be_of_a_kind_of_the_callers_own() -> None:
    assert FaultError("second_publisher", "two of them").kind == "second_publisher"


def test_out_of_range_is_counted_and_a_fault_when_it_lasts() -> None:
    far = np.array([6.5, 0.0, 0.04])  # 3 * 2 + 0.1 is the bound
    monitors = Monitors(SPECS, normalisers=NORMALISERS)
    monitors.observed(stamped(1, 1, far - [0.45, 0, 0]), HOME, 1)
    assert not monitors.counts
    monitors.observed(stamped(2, 2, far), HOME, 2)
    monitors.observed(stamped(3, 3), HOME, 3)
    monitors.observed(stamped(4, 4, far), HOME, 4)
    assert monitors.counts == {"out_of_range": 2}
    with pytest.raises(FaultError, match=r"'q' = \[6.5, 0.0, 0.04\] is 3.2 times its range in training"):
        monitors.observed(stamped(5, 5, far), HOME, 5)
    counting = Monitors(SPECS, MonitorConfig(range_observations=0), normalisers=NORMALISERS)
    for k in range(9):
        counting.observed(stamped(k, k, far), HOME, k)
    assert counting.counts == {"out_of_range": 9}


def test_a_state_that_hardly_moved_in_the_data_has_a_floor() -> None:
    tight = Normalisers({"q": Affine((0.1, -0.1, 0.04), (1e-5, 1e-5, 1e-5))}, NORMALISERS.action)
    monitors = Monitors(SPECS, normalisers=tight)
    monitors.observed(stamped(1, 1, HOME + 0.09), HOME, 1)
    assert not monitors.counts
    monitors.observed(stamped(2, 2, HOME + 0.11), HOME, 2)
    assert monitors.counts == {"out_of_range": 1}


def test_a_measured_position_beyond_the_limits_is_out_of_range() -> None:
    monitors = Monitors(SPECS, limits=LIMITS)
    monitors.observed(stamped(1, 1), np.array([2.1, -2.1, 0.0]), 1)  # a little: the filter brings it in
    assert not monitors.counts
    beyond = np.array([0.0, -2.3, 0.0])
    monitors.observed(stamped(2, 2), beyond, 2)
    with pytest.raises(FaultError, match=r"dimensions \[1\] are measured at \[-2\.3\], beyond"):
        monitors.observed(stamped(3, 3), beyond, 3)


def test_what_does_not_fit_is_refused() -> None:
    short = Limits(*(getattr(LIMITS, field.name)[:2] for field in dataclasses.fields(Limits)))
    with pytest.raises(ShapeError, match="2 dimensions for actions of 3"):
        Monitors(SPECS, limits=short)
    with pytest.raises(ConfigError, match="frozen_periods"):
        MonitorConfig(frozen_periods=-1.0)


def test_ticks_are_absolute_and_none_is_made_up_for() -> None:
    now = [0]
    ticker = Ticker(100.0, lambda: now[0], lambda until: now.__setitem__(0, max(now[0], until)), jump_s=0.5)
    assert ticker.wait() == 0 and ticker.finish() == 0
    assert ticker.wait() == 10 * MS
    now[0] += 35 * MS
    assert ticker.finish() == 35 * MS and ticker.missed == 3 - 1
    assert ticker.wait() == 40 * MS  # at 45: late, but the nearest


@pytest.mark.parametrize("seconds", [0.6, -0.6])
def test_a_clock_jump_raises_once_and_the_ticks_go_on_from_there(seconds: float) -> None:
    now = [0]
    ticker = Ticker(100.0, lambda: now[0], lambda until: now.__setitem__(0, max(now[0], until)), jump_s=0.5)
    for _ in range(10):
        ticker.wait()
        ticker.finish()
    now[0] += round(seconds * 1e9)
    slept = now[0]
    with pytest.raises(FaultError, match="clock"):
        ticker.wait()
    assert now[0] == slept  # not for as long as the clock went back
    ticker.finish()
    assert ticker.wait() == slept + 10 * MS and ticker.missed == 0

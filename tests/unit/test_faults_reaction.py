"""The fault table on an injected clock: detected within two periods of the signal that failed, braking on the
next tick, at rest within 1.2 times the quickest stop that the joint limits allow, and the reason reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from fault_rig import AT, NEVER, PERIOD, SPECS, TICK, FaultRig, stopping_ticks
from test_runtime_runner import MS, assert_stopped

from robopolicy.runtime import RunResult
from robopolicy.runtime.control.faults import FAULTS
from robopolicy.runtime.control.monitors import MonitorConfig, Monitors
from robopolicy.runtime.inference.watch import Watch


@dataclass(frozen=True)
class Case:
    """Args:
    happens: what goes wrong.
    kind: of the fault.
    reason: as the result must give it.
    period: of the signal that fails [ns].
    since: the instant from which the signal is missing or wrong; that of ``happens`` unless given.
    """

    happens: Callable[[FaultRig], object]
    kind: str
    reason: str
    period: int = PERIOD
    since: Callable[[FaultRig], int] = lambda rig: rig.failed_ns
    monitors: MonitorConfig | None = None


def answered(rig: FaultRig) -> int:
    return rig.client._ready_ns


def spoil(with_what: Callable[[np.ndarray], np.ndarray]) -> Callable[[FaultRig], object]:
    return lambda rig: setattr(rig.policy, "spoil", with_what)


def one_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def put(chunk: np.ndarray) -> np.ndarray:
        chunk[..., -1, 0] = value
        return chunk

    return put


def out_of_memory(chunk: np.ndarray) -> np.ndarray:
    raise MemoryError("unable to allocate 12.3 GiB")


def jump(seconds: float) -> Callable[[FaultRig], object]:
    return lambda rig: setattr(rig.time, "now_ns", rig.time.now_ns + round(seconds * 1e9))


def glide_and_jump(rig: FaultRig) -> None:
    """A clock ahead, and an arm that was not held up: it is where 1 rad/s takes it."""
    rig.time.now_ns += 7 * 10**9
    rig.plant.position = rig.plant.position + 7.0 * np.array([1.0, -1.0, 0.0])


def put(part: str, name: str, value: object) -> Callable[[FaultRig], object]:
    return lambda rig: setattr(getattr(rig, part), name, value)


CASES = {
    "worker killed": Case(put("client", "dead", True), "worker", "ended with status -9", TICK),
    "worker stopped": Case(put("client", "stopped", True), "worker", "no heartbeat for 0.0"),
    "worker hung": Case(
        put("client", "_delay_ns", NEVER),
        "worker",
        r"request 3 got no further for 0\.1.. s, more than 0.1",
        since=lambda rig: rig.client.asked_ns,
    ),
    "NaN chunk": Case(spoil(one_value(np.nan)), "inference", "1 non-finite", since=answered),
    "infinite chunk": Case(spoil(one_value(np.inf)), "inference", "1 non-finite", since=answered),
    "chunk of a wrong shape": Case(
        spoil(lambda chunk: chunk[..., :-1, :]), "inference", r"\(16, 3\), got \(15, 3\)", since=answered
    ),
    "out of memory": Case(spoil(out_of_memory), "inference", "MemoryError: unable", since=answered),
    "camera frozen": Case(put("plant", "frozen", "camera"), "camera_frozen", "'camera' is frozen: its stamp"),
    "camera's pixels frozen": Case(
        put("plant", "stuck", "pixels"),
        "camera_frozen",
        "not one pixel changed for",
        since=lambda rig: rig.failed_ns + PERIOD,  # its first repeated picture
        monitors=MonitorConfig(still_periods=1.0),
    ),
    "joint state frozen": Case(put("plant", "frozen", "q"), "joint_state_frozen", "'q' is frozen: its stamp"),
    "joints stuck": Case(put("plant", "stuck", "joints"), "joint_state_frozen", "to the last bit for 0.16"),
    "clock back": Case(jump(-7.0), "clock_jump", "the clock went back by 6.99", TICK),
    "clock ahead": Case(glide_and_jump, "clock_jump", r"the clock is 6\.99. s past the tick", TICK),
    "observation out of range": Case(put("plant", "far", 100.0), "out_of_range", "'q' = .* times its range"),
    "observation not finite": Case(put("plant", "far", np.nan), "observation", "'q' has non-finite values"),
    "deadman let go": Case(put("deadman", "pressed", False), "latched", "tripped: deadman", TICK),
    "emergency stop": Case(lambda rig: rig.safety.trip("emergency stop"), "latched", "emergency stop", TICK),
}


def react(case: Case) -> tuple[FaultRig, RunResult]:
    """One run in which it happens; also what ``benchmarks/fault_table.py`` shows."""
    rig = FaultRig(monitors=case.monitors and Monitors(SPECS, case.monitors))
    return rig, rig.run(case.happens, duration_s=3.0)


@pytest.mark.parametrize("name", CASES)
def test_reaction(name: str) -> None:
    case = CASES[name]
    rig, result = react(case)
    assert result.fault and re.search(case.reason, result.reason), result.reason
    assert result.faults[case.kind] >= 1 and case.kind in FAULTS
    assert AT < result.ticks == first_braking(result.reasons)
    if case.kind != "clock_jump":  # its stamps are of another time
        detected_ns = int(result.time_ns[result.ticks])
        assert detected_ns - case.since(rig) <= 2 * case.period
    took, allowed = stopping_ticks(rig.plant.sent, result.ticks)
    assert 9 <= took <= allowed  # it did move
    assert_stopped(rig.plant)
    assert rig.safety.latched and rig.safety.at_rest


def first_braking(reasons: tuple[tuple[str, ...], ...]) -> int:
    return next(i for i, tick in enumerate(reasons) if {"brake", "latched"} & set(tick))


def test_a_clock_jump_is_seen_at_the_very_next_tick() -> None:
    for seconds in (7.0, -7.0):
        assert FaultRig().run(jump(seconds)).ticks == AT + 1
    assert not FaultRig().run(jump(0.045)).fault  # a hold-up
    assert FaultRig().run(jump(0.3)).fault and not FaultRig().run(jump(0.3), clock_jump_s=0.5).fault


@pytest.mark.parametrize("when_starved", ["stop", "tail"])
def test_a_late_chunk_is_counted_and_the_run_goes_on(when_starved: str) -> None:
    """Told to stop, it does so at once, as fast as it may; the scheduler's own tail is gentler."""
    rig = FaultRig()
    rig.policy.speed = 1.2  # 0.6 rad/s, to be far from the limits when the chunk of 0.8 s ends at 2.3 s
    rig.client._watch = Watch(stale_ns=NEVER, hang_ns=NEVER, hang_factor=1.0)
    duration_s = 3.9 if when_starved == "stop" else 3.0
    slow = put("client", "_delay_ns", 1000 * MS)
    result = rig.run(slow, when_starved=when_starved, duration_s=duration_s)
    assert (result.reason, result.faults, result.restarts) == ("duration", {"late_chunk": 1}, 0)
    assert result.scheduler["accepted_chunks"] == 3
    velocity = np.abs(np.diff(rig.plant.sent, axis=0)[:, 0]) / 0.01
    assert velocity[215] == pytest.approx(0.6, abs=0.01) and velocity[round(duration_s * 100) - 20] > 0.3
    if when_starved == "stop":
        first = next(i for i, reasons in enumerate(result.reasons) if "brake" in reasons)
        assert first == 230
        took, allowed = stopping_ticks(rig.plant.sent[:300], first)
        assert 5 <= took <= allowed and (velocity[first + took : 340] == 0).all()
    else:
        assert 0.1 < velocity[245] < 0.3 and velocity[260] < 0.1
    assert_stopped(rig.plant)


def test_a_worker_that_is_restarted_brakes_at_once_and_the_run_goes_on_from_rest() -> None:
    rig = FaultRig()
    rig.policy.speed = 1.0
    result = rig.run(put("client", "restarting", 60), duration_s=2.5)
    assert (result.reason, result.fault, result.restarts) == ("duration", False, 1)
    assert result.faults == {"worker": 1} and "status -9" in result.failed_inferences[0]
    first = first_braking(result.reasons)
    assert first == AT + 1
    took, allowed = stopping_ticks(rig.plant.sent[: first + 50], first)
    assert 4 <= took <= allowed
    velocity = np.abs(np.diff(rig.plant.sent, axis=0)[:, 0]) / 0.01
    assert (velocity[first + took : first + 59] == 0).all() and velocity[220:240].min() > 0.3
    times = np.array([request.observation_time_ns for request in rig.client.requests])
    gap = (times > result.time_ns[first]) & (times < result.time_ns[first + 59])
    assert not gap.any()  # nothing is asked of it until it is there
    assert_stopped(rig.plant)


def test_a_latch_outlives_the_run() -> None:
    rig = FaultRig()
    rig.run(put("client", "dead", True))
    rig.client.dead = False
    again = rig.run(lambda rig: None)
    assert again.fault and not len(again.commands) and "tripped: worker" in again.reason
    rig.safety.clear_latch()
    assert rig.run(lambda rig: None, duration_s=0.5).reason == "duration"

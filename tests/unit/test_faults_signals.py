"""What the loop has from the operating system: signals between ticks, scheduling where it is granted."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np
import pytest
from fault_rig import AT, FaultRig
from test_runtime_runner import assert_stopped

from robopolicy.core.errors import ConfigError
from robopolicy.runtime.control.realtime import USUAL, RealtimeConfig, applied
from robopolicy.runtime.control.stop_signals import StopSignals

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scheduling is asked of Linux alone")


@pytest.mark.usefixtures("hang_up_not_ignored")
@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted"), (signal.SIGHUP, "hung up")],
)
def test_a_signal_brakes_to_rest_and_is_no_fault(number: signal.Signals, reason: str) -> None:
    before = signal.getsignal(number)
    rig = FaultRig()
    result = rig.run(lambda rig: signal.raise_signal(number))
    assert (result.reason, result.fault, result.ticks) == (reason, False, AT + 1)
    assert result.signal == reason
    assert not rig.safety.latched and signal.getsignal(number) is before
    assert_stopped(rig.plant)


def test_a_second_signal_is_the_same_wish_and_a_later_one_acts_as_before() -> None:
    now = [5 * 10**15]
    with StopSignals(lambda: now[0]) as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        assert stop.received == "interrupted"
        now[0] += 20_000_000
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == "interrupted"
        now[0] += 3_000_000_000
        signal.raise_signal(signal.SIGINT)


def test_pressing_twice_does_not_cut_the_braking_short() -> None:
    rig = FaultRig()
    command = rig.plant.command

    def press(position: np.ndarray) -> None:
        command(position)
        if len(rig.plant.sent) in (AT, AT + 2):
            signal.raise_signal(signal.SIGINT)

    rig.plant.command = press  # type: ignore[method-assign]
    assert rig.run(lambda rig: None).reason == "interrupted" and rig.safety.at_rest
    assert_stopped(rig.plant)


def test_a_signal_while_braking_is_told_to_whoever_waits_outside() -> None:
    rig = FaultRig()
    command = rig.plant.command

    def late(position: np.ndarray) -> None:
        command(position)
        if len(rig.plant.sent) == AT + 53:
            signal.raise_signal(signal.SIGTERM)

    rig.plant.command = late  # type: ignore[method-assign]
    with StopSignals() as outer:
        result = rig.run(lambda rig: None, duration_s=1.5)
        assert (result.reason, result.signal, outer.received) == ("duration", "terminated", "terminated")
        assert len(result.commands) > AT + 53
        # One that came before the next run began ends it at once.
        assert rig.run(lambda rig: None).ticks == 1
    assert_stopped(rig.plant)


def test_signals_are_restored_whatever_came_and_an_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = StopSignals()
        with stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.received == "" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            stop._restore(signal.SIGTERM)
            stop._restore(signal.SIGTERM)  # from a handler that came in between
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    seen = []

    def work() -> None:
        with StopSignals() as stop:
            seen.append((stop.received, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [("", signal.getsignal(signal.SIGTERM))]


@LINUX
def test_what_is_granted_is_said_and_taken_back() -> None:
    before = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    with applied(RealtimeConfig()) as granted:
        assert granted[0] == "timer slack 1000 ns" and granted[1].startswith("SCHED_FIFO 10")
        if granted[1] == "SCHED_FIFO 10":
            assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
            assert os.sched_getparam(0).sched_priority == 10
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == before
    with applied(USUAL) as granted:
        assert granted == ()


@LINUX
def test_what_is_refused_is_said_and_the_loop_runs_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(pid: int, policy: int, parameter: os.sched_param) -> None:
        asked.append(policy & ~os.SCHED_RESET_ON_FORK)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with applied(RealtimeConfig(priority=20, timer_slack_ns=0)) as granted:
        pass
    assert granted == ("SCHED_FIFO 20 refused (Operation not permitted): allow it with an rtprio limit",)
    assert asked == [os.SCHED_FIFO]  # nothing to take back


@LINUX
def test_what_cannot_be_taken_back_does_not_hide_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    granted_once = iter([None])

    def once(pid: int, policy: int, parameter: os.sched_param) -> None:
        if next(granted_once, "no more") is not None:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", once)
    with applied(RealtimeConfig(priority=20, timer_slack_ns=0)) as granted:
        pass
    assert granted == ("SCHED_FIFO 20",)


def test_bad_values_are_refused() -> None:
    for bad in ({"priority": 100}, {"timer_slack_ns": -1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            RealtimeConfig(**bad)

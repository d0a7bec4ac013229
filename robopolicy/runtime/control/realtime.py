"""What a control loop can ask of Linux so that it wakes up in time; each is granted or not, and said.

Chosen by measurement on two busy cores, see ``docs/experiments.md``: real-time scheduling is what keeps
the lateness down beside other work, and a small timer slack takes 50 microseconds off every tick.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from robopolicy.core.errors import ConfigError

_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30  # linux/prctl.h


@dataclass(frozen=True)
class RealtimeConfig:
    """For the calling thread alone; what it starts meanwhile runs as usual.

    Args:
        priority: of SCHED_FIFO, 1..99; 0 leaves the scheduling as it is. Needs CAP_SYS_NICE or an "rtprio"
            limit in /etc/security/limits.conf. The kernel leaves others 5 % of the time in any case.
        timer_slack_ns: how late the kernel may wake it to save power [ns]; 0 leaves it (usually 50 000).
    """

    priority: int = 10
    timer_slack_ns: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 99 or self.timer_slack_ns < 0:
            raise ConfigError(
                f"need priority 0..99 and timer_slack_ns >= 0, got {self.priority}, {self.timer_slack_ns}"
            )


#: Asks for nothing.
USUAL = RealtimeConfig(priority=0, timer_slack_ns=0)


@contextmanager
def applied(config: RealtimeConfig) -> Iterator[tuple[str, ...]]:
    """Ask, give what was granted and what was not, in words, and take it back at the end."""
    if not sys.platform.startswith("linux"):
        yield ("real-time scheduling: only on Linux",)
        return
    said: list[str] = []
    scheduled = False
    scheduler, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    libc = ctypes.CDLL(None, use_errno=True)
    slack_ns = libc.prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    if config.timer_slack_ns:
        refused = libc.prctl(_PR_SET_TIMERSLACK, config.timer_slack_ns, 0, 0, 0)
        said.append(f"timer slack {config.timer_slack_ns} ns" + (" refused" if refused else ""))
    if config.priority:
        scheduled, text = _schedule(config.priority)
        said.append(text)
    try:
        yield tuple(said)
    finally:
        if scheduled:
            # The flag stays: only a privileged process may take it back, and it harms nothing.
            with contextlib.suppress(OSError):  # it must not take the place of the run's result
                os.sched_setscheduler(0, scheduler | os.SCHED_RESET_ON_FORK, parameter)
        if config.timer_slack_ns:
            libc.prctl(_PR_SET_TIMERSLACK, slack_ns, 0, 0, 0)


def _schedule(priority: int) -> tuple[bool, str]:
    """Whether it was granted, and in words."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        return False, f"SCHED_FIFO {priority} refused ({error.strerror}): allow it with an rtprio limit"
    return True, f"SCHED_FIFO {priority}"

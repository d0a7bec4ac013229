"""SIGTERM, SIGINT and SIGHUP as a wish to stop, noted between ticks and never in the middle of a command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from robopolicy.runtime.clock import monotonic_ns

#: Signal to the reason a run ends with.
REASONS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
if hasattr(signal, "SIGHUP"):
    REASONS[signal.SIGHUP] = "hung up"
SAME_WISH_S = 3.0


class StopSignals:
    """While entered, the first signal is only noted. Others within ``SAME_WISH_S`` are the same wish, since
    people press twice; later ones act as before, so that a driver which blocks can still be interrupted.

    Where one is entered within another, what the inner one notes the outer one notes too. A SIGHUP that was
    ignored stays so (nohup). Outside the main thread, which alone may handle signals, it does nothing.

    Args:
        clock: monotonic [ns].
    """

    def __init__(self, clock: Callable[[], int] = monotonic_ns) -> None:
        self.received = ""
        self._clock = clock
        self._first_ns = 0
        self._outer: StopSignals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in REASONS:
            before = signal.getsignal(number)
            if before is signal.SIG_IGN and REASONS[number] == "hung up":
                continue
            outer = getattr(before, "__self__", None)
            self._outer = outer if isinstance(outer, StopSignals) else self._outer
            self._before[number] = before
            signal.signal(number, self._note)
        if self._outer is not None and self._outer.received:
            self._take(self._outer.received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in tuple(self._before):
            self._restore(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        if not self.received:
            self._take(REASONS[which])
        elif self._clock() - self._first_ns > SAME_WISH_S * 1e9:
            self._restore(which)
            signal.raise_signal(which)

    def _take(self, reason: str) -> None:
        if not self.received:
            self.received, self._first_ns = reason, self._clock()
        if self._outer is not None:
            self._outer._take(reason)

    def _restore(self, number: signal.Signals) -> None:
        if number in self._before:  # a second signal may come in between
            before = self._before.pop(number)
            signal.signal(number, signal.SIG_DFL if before is None else before)

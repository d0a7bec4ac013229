"""The instants of a control loop: absolute deadlines, none made up for, and a clock that is checked."""

from __future__ import annotations

from collections.abc import Callable

from robopolicy.core.errors import ConfigError
from robopolicy.runtime.control.faults import FaultError


class Ticker:
    """Tick k is due k periods after the start.

    Args:
        rate: [Hz].
        clock, sleep_until: monotonic [ns].
        jump_s: a tick that begins this much after its deadline is a clock jump: the clock's, or the whole
            machine was held up for so long that it makes no difference to the arm [s].
    """

    def __init__(
        self, rate: float, clock: Callable[[], int], sleep_until: Callable[[int], None], *, jump_s: float
    ) -> None:
        if not jump_s > 0:
            raise ConfigError(f"jump_s must be positive [s], got {jump_s}")
        self._clock, self._sleep_until = clock, sleep_until
        self.period_ns = 1e9 / rate
        self._jump_ns = round(jump_s * 1e9)
        self.start_ns = self.began_ns = clock()
        self.tick = 0
        self.missed = 0

    def wait(self) -> int:
        """Sleep until this tick is due and return its deadline [ns].

        Raises:
            FaultError: the clock jumped; deadlines count from where it is now.
        """
        deadline_ns = self.start_ns + round(self.tick * self.period_ns)
        before_ns = self._clock()
        if before_ns >= self.began_ns:  # else it would sleep for as long as the clock went back
            self._sleep_until(deadline_ns)
        now_ns = self._clock()
        back_ns = max(self.began_ns - before_ns, before_ns - now_ns)
        self.began_ns = now_ns
        if back_ns > 0:
            self._rebase()
            raise FaultError("clock_jump", f"the clock went back by {back_ns * 1e-9:.6f} s")
        if now_ns - deadline_ns > self._jump_ns:
            self._rebase()
            raise FaultError(
                "clock_jump", f"the clock is {(now_ns - deadline_ns) * 1e-9:.3f} s past the tick that was due"
            )
        return deadline_ns

    def finish(self) -> int:
        """Go on to the next tick that can still be met; returns the time since this one began [ns]."""
        now_ns = self._clock()
        nearest = int((now_ns - self.start_ns) / self.period_ns)
        skipped = max(nearest - self.tick - 1, 0)
        if skipped * self.period_ns > self._jump_ns:
            skipped = 0  # for ``wait`` to see
        self.missed += skipped
        self.tick += 1 + skipped
        return now_ns - self.began_ns

    def _rebase(self) -> None:
        self.start_ns = self.began_ns - round(self.tick * self.period_ns)

"""Whether an inference process is alive and gets on with its work; pure logic, on the caller's clock."""

from __future__ import annotations

from robopolicy.runtime.delay import DelayMeter
from robopolicy.runtime.inference.channel import Status


class Watch:
    """Two signals, since either can fail alone: the process may be stopped, or the computation stuck.

    The heartbeat comes from a thread of the worker that beats also while the engine computes. Progress
    moves when a request is begun and when it is answered; with one unanswered it must move within the
    longest time an inference is expected to take.

    Time counts only as far as the watching loop itself was running: a gap between two looks counts as no
    more than half of ``stale_ns``, or a machine that slept would wake up to a worker taken for dead.

    Args:
        stale_ns: a heartbeat that stands still for this long is a fault [ns].
        hang_ns: progress that stands still for this long is one, or for ``hang_factor`` times the 95th
            percentile of the measured inference time where that is longer [ns].
        varies: the newest inferences do not tell what the next may take, as where a deadline decides how many
            candidates are drawn; the slowest of the warm-up counts besides, for ever.
    """

    def __init__(self, *, stale_ns: int, hang_ns: int, hang_factor: float, varies: bool = False) -> None:
        self._stale_ns, self._hang_ns, self._hang_factor = stale_ns, hang_ns, hang_factor
        self._varies, self._warm_ns = varies, 0
        self._meter = DelayMeter(warmup=0)
        self._expected_ns = 0
        self._last: Status | None = None
        self._last_ns = 0
        self._silent_ns = self._stuck_ns = 0

    @property
    def hang_ns(self) -> int:
        """Longest time without progress while a request is unanswered [ns]."""
        return max(self._hang_ns, round(self._hang_factor * max(self._expected_ns, self._warm_ns)))

    def measured(self, inference_ns: int) -> None:
        """An inference took this long."""
        self._meter.add(inference_ns)
        self._expected_ns = self._meter.p95_ns

    def look(self, status: Status, asked: int, now_ns: int) -> str:
        """What is wrong, in words; empty while nothing is.

        Args:
            asked: id of the newest request that was sent.
            now_ns: any monotonic clock, always the same.
        """
        last, self._last = self._last, status
        gap_ns = min(max(now_ns - self._last_ns, 0), (self._stale_ns + 1) // 2)
        self._last_ns = now_ns
        if last is None:
            self._expected_ns = status.warm_ns
            self._warm_ns = status.warm_ns if self._varies else 0
            return ""
        self._silent_ns = 0 if status.heartbeat != last.heartbeat else self._silent_ns + gap_ns
        if self._silent_ns >= self._stale_ns:
            return f"hangs: no heartbeat for {self._silent_ns * 1e-9:.3f} s"
        if status.progress != last.progress or status.answered >= asked:
            self._stuck_ns = 0
            return ""
        self._stuck_ns += gap_ns
        if self._stuck_ns >= self.hang_ns:
            return (
                f"hangs: request {asked} got no further for {self._stuck_ns * 1e-9:.3f} s, more than "
                f"{self.hang_ns * 1e-9:.3f} s"
            )
        return ""

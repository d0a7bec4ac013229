"""The monotonic clock and an absolute-deadline sleep; the control loop takes both as arguments."""

from __future__ import annotations

import time


def monotonic_ns() -> int:
    """Nanoseconds on the machine's monotonic clock, shared by its processes."""
    return time.monotonic_ns()


def sleep_until_ns(deadline_ns: int) -> None:
    """Sleep until the monotonic clock reaches a deadline; return at once when it has passed."""
    remaining_ns = deadline_ns - time.monotonic_ns()
    if remaining_ns > 0:
        time.sleep(remaining_ns * 1e-9)

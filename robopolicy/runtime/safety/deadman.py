"""A button that must be held, or pressed again and again, for the arm to move."""

from __future__ import annotations

from robopolicy.core.errors import ConfigError


class Deadman:
    """Held from each press on for a while; never before the first.

    Args:
        timeout_s: how long a press counts [s].
    Raises:
        ConfigError: timeout_s is not positive.
    """

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise ConfigError(f"a deadman's timeout must be positive, got {timeout_s} s")
        self._timeout_ns = round(timeout_s * 1e9)
        self._pressed_ns: int | None = None

    def press(self, now_ns: int) -> None:
        """The operator pressed, or still presses; instants are on one monotonic clock [ns]."""
        self._pressed_ns = now_ns

    def release(self) -> None:
        """The operator let go: not held from now on."""
        self._pressed_ns = None

    def held(self, now_ns: int) -> bool:
        """Whether the last press was at most ``timeout_s`` ago, and not in the future."""
        return self._pressed_ns is not None and 0 <= now_ns - self._pressed_ns <= self._timeout_ns

"""A deadman that is held by pressing Enter again and again."""

from __future__ import annotations

import select
import sys
import threading
import time
from collections.abc import Callable

from rich.console import Console

from robopolicy.core.errors import ConfigError
from robopolicy.runtime.safety.deadman import Deadman

_LOOK_S = 0.1


class EnterKey(Deadman):
    """Read from the terminal, by a thread of its own after the first press.

    Args:
        timeout_s: how long a press counts [s].
    Raises:
        ConfigError: stdin is no terminal, or timeout_s is not positive.
    """

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._timeout_s = timeout_s
        if not sys.stdin.isatty():
            raise ConfigError(
                "--deadman enter needs somebody at a terminal, and stdin is none: run it in a terminal, "
                "without a pipe, or with --deadman none"
            )

    def begin(self, console: Console, stopped: Callable[[], bool]) -> None:
        """Wait for the first press, or for ``stopped``.

        Raises:
            ConfigError: the terminal is gone.
        """
        console.print(f"hold or press Enter at least every {self._timeout_s:g} s; letting go stops the arm")
        console.print("press Enter to begin ", end="")
        while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
            if stopped():
                return
        if not _line():
            raise ConfigError("the terminal was closed before Enter was pressed: nothing was moved")
        self.press(time.monotonic_ns())
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while _line():
            self.press(time.monotonic_ns())
        self.release()


def _line() -> str:
    """Empty when the terminal is gone."""
    try:
        return sys.stdin.readline()
    except (OSError, ValueError):
        return ""

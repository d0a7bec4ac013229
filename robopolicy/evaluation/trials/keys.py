"""Single keys from a person: from the terminal, and from the page of the trials."""

from __future__ import annotations

import codecs
import os
import queue
import select
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol

from robopolicy.core.errors import ConfigError

WAIT_S = 0.05  # between looks at the page's keys
ENTER = ("\r", "\n")
ERASE = ("\x7f", "\b")


class Keys(Protocol):
    """An iterator of keys that can also be asked without waiting."""

    def __next__(self) -> str:
        """The next key; blocks. EOFError when there will be none."""
        ...

    def drain(self) -> str:
        """All keys pressed so far and not yet taken, at once; empty when there are none."""
        ...


def read_line(keys: Keys, echo: Callable[[str], None]) -> str:
    """Text up to Enter, shown as it is typed."""
    text = ""
    while (key := next(keys)) not in ENTER:
        if key in ERASE:
            echo("\b \b" if text else "")
            text = text[:-1]
        elif key.isprintable():
            text += key
            echo(key)
    echo("\n")
    return text.strip()


class TerminalKeys:
    """Keys of the terminal, without Enter, and of a queue that others fill.

    Use as a context manager: the terminal is given back as it was.

    Raises:
        ConfigError: standard input is no terminal.
    """

    def __init__(self, more: queue.SimpleQueue[str] | None = None) -> None:
        self._more: queue.SimpleQueue[str] = more if more is not None else queue.SimpleQueue()
        self._before: list[Any] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __enter__(self) -> TerminalKeys:
        if not sys.stdin.isatty():
            raise ConfigError("trials are judged by keys: run this in a terminal")
        import termios
        import tty

        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)  # Ctrl-C still interrupts
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import termios

        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            if key := self._take(WAIT_S):
                return key

    def drain(self) -> str:
        found = ""
        while key := self._take(0.0):
            found += key
        return found

    def _take(self, wait_s: float) -> str:
        try:
            return self._more.get_nowait()
        except queue.Empty:
            pass
        ready, _, _ = select.select([sys.stdin], [], [], wait_s)
        if not ready:
            return ""
        text = ""
        while not text:  # a letter may be several bytes
            data = os.read(sys.stdin.fileno(), 1)  # sys.stdin.read would wait for more than select saw
            if not data:
                raise EOFError("the terminal is gone")
            text = self._decoder.decode(data)
        return text

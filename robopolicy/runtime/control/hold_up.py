"""Whether the arm stood still while no command came: a position servo stops at the last one it was given."""

from __future__ import annotations

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.geometry import Float

_MOVING = 0.75  # of the way the old velocity would have gone


class HoldUp:
    """Compares ticks that are two periods or more apart; pure logic, instants are passed in [ns].

    After a hold-up the next command at the old velocity would throw an arm that stands to that speed within
    a tick. How far it got tells: a servo without lag stops after a period; one with lag, or anything that
    goes on by itself, is found where the old velocity takes it, and keeps it.

    Args:
        period_ns: of the control loop.
    """

    def __init__(self, period_ns: float) -> None:
        self._period_ns = period_ns
        self._now: tuple[Float, int] | None = None
        self._seen: tuple[Float, int] | None = None  # when the last command was sent
        self._sent: Float | None = None
        self._step: Float | None = None  # between the last two commands

    def sent(self, command: Float) -> None:
        """(dim,) was delivered, in the tick of the last ``stood_ns``."""
        self._step = None if self._sent is None else command - self._sent
        self._sent, self._seen = command.copy(), self._now

    def rest(self) -> Float:
        """(dim,) what was sent last, which counts as a command at rest from now on."""
        if self._sent is None:
            raise ConfigError("nothing was sent yet")
        self._step = None
        return self._sent.copy()

    def stood_ns(self, measured: Float, now_ns: int) -> int:
        """Each tick, before its command: for how long there was none, if the arm, (dim,), stopped; else 0."""
        self._now = (measured.copy(), now_ns)  # a copy: drivers reuse their buffers
        if self._seen is None or self._step is None or not self._step.any():
            return 0
        gap_ns = now_ns - self._seen[1]
        periods = gap_ns / self._period_ns
        if round(periods) < 2:
            return 0
        way = float(np.dot(measured - self._seen[0], self._step))
        return gap_ns if way < _MOVING * periods * float(np.dot(self._step, self._step)) else 0

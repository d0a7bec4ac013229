"""Between the command that is sent and the servos: a delay, noise, and a dead band."""

from __future__ import annotations

from typing import Any

import numpy as np

from robopolicy.core.geometry import Float
from robopolicy_sim.randomisation.delays import Delay


class ImperfectPath:
    """Delays commands, adds noise, and turns them round in a dead band.

    Commands are delayed by whole control ticks; the fraction of a tick in between is interpolated linearly.
    A dead band of width w, as of worn gears, leaves the servo where it is until the command has moved
    w / 2 past it, and then trails by w / 2 (the play operator).

    Args:
        delay: of the commands.
        noise: (ticks, num_joints + 1) added to what arrives [rad, m]; after the last it begins anew.
        width: (num_joints + 1,) of the dead bands [rad, m].
    """

    def __init__(self, delay: Delay, noise: Float, width: Float) -> None:
        self._delay, self._noise, self._half = delay, noise, width / 2
        self._tick = 0
        self._sent: tuple[Float, ...] = ()  # newest last
        self._held: Float = np.zeros(0)

    def reset(self, command: Float) -> None:
        """The robot stands still at ``command``, in the middle of every dead band."""
        self._tick, self._sent, self._held = 0, (np.array(command),), np.array(command)

    def advance(self, command: Float) -> Float:
        """What reaches the servos in this tick."""
        self._sent = (*self._sent, command)[-self._delay.window - 1 :]
        whole, fraction = self._delay.at(self._tick)
        arrived = self._ago(whole)
        if fraction:
            arrived = arrived + fraction * (self._ago(whole + 1) - arrived)
        arrived = arrived + self._noise[self._tick % len(self._noise)]
        self._held = np.clip(self._held, arrived - self._half, arrived + self._half)
        self._tick += 1
        return self._held

    def _ago(self, ticks: int) -> Float:
        """The command of some ticks ago; that of the reset before the first."""
        return self._sent[max(len(self._sent) - 1 - ticks, 0)]

    def state(self) -> Any:
        return self._tick, self._sent, self._held

    def restore(self, state: Any) -> None:
        self._tick, self._sent, self._held = state

"""What is moved at control rate: a robot's driver or a simulator, behind the same four calls."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs


class Stamped(NamedTuple):
    """One sensor value and the monotonic instant it was captured at [ns]."""

    value: NDArray[Any]
    time_ns: int


class Plant(Protocol):
    """A robot, real or simulated, that accepts position commands at ``control_rate``.

    The runtime calls ``observe`` at policy rate and ``command`` once a control tick.
    """

    @property
    def specs(self) -> Specs:
        """Observations it gives, commands it takes."""
        ...

    @property
    def control_rate(self) -> float:
        """Commands per second [Hz]."""
        ...

    def observe(self) -> dict[str, Stamped]:
        """The newest value of every observation in ``specs``, each with its own stamp."""
        ...

    def measured(self) -> NDArray[np.float64]:
        """(action_dim,) measured position of what is commanded: joints [rad], gripper opening [m]."""
        ...

    def command(self, position: NDArray[np.float64]) -> None:
        """Send (action_dim,) position targets for the next control period; never blocks for long."""
        ...

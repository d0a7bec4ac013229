"""Commands that reach the servos late, by any number of control ticks, fractions too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float


def delayed(commands: NDArray[Any], ticks: float) -> Float:
    """What the servos see of (count, dim) held commands that are ``ticks`` late.

    A fraction blends two neighbouring commands, as ``randomisation.actuation.ImperfectPath`` does tick by
    tick, so a fit can move the delay continuously. Before the first command, the first is held.
    """
    whole = math.floor(ticks)
    part = ticks - whole
    index = np.arange(len(commands))
    newer = commands[np.maximum(index - whole, 0)]
    older = commands[np.maximum(index - whole - 1, 0)]
    blended: Float = newer + part * (older - newer)
    return blended

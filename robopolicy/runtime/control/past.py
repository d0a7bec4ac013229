"""What was commanded at the older instants of an observation window."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from robopolicy.core.geometry import Float
from robopolicy.core.policy import Float32
from robopolicy.core.specs import PolicySpecs


def past_actions(
    specs: PolicySpecs, observed_ns: int, time_ns: Sequence[int], commands: Sequence[Float], tick_ns: int
) -> Float32:
    """Actions that a chunk for this observation has at indices before ``action_start``, see ``Context.past``.

    Args:
        observed_ns: instant of the current observation.
        time_ns: deadlines of the control ticks so far, rising; the command of a tick is reached at its end.
        commands: (action_dim,) of each.
        tick_ns: control period.
    Returns:
        (action_start, action_dim), oldest first; NaN where no command had been sent.
    """
    start = specs.horizons.action_start
    period_ns = round(1e9 / specs.specs.policy_rate)
    reached = 1 if specs.specs.action.reached == "end" else 0
    past = np.full((start, specs.specs.action.dim), np.nan, np.float32)
    for row in range(start):
        due_ns = observed_ns - (start - row - reached) * period_ns
        tick = bisect_right(time_ns, due_ns - tick_ns + tick_ns // 2) - 1  # the nearest that ends there
        if tick >= 0:
            past[row] = commands[tick]
    return past

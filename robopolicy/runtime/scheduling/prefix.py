"""Real-time chunking (Black, Galliker, Levine 2025, arXiv 2506.07339): what a new chunk should agree with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.geometry import Float
from robopolicy.core.policy import Float32
from robopolicy.runtime.scheduling.plan import Plan


def prefix_from(
    plan: Plan,
    times_ns: NDArray[np.int64],
    *,
    arrival_ns: int,
    covered_until_ns: int,
    off: Callable[[int], Float],
) -> tuple[Float32, Float32] | None:
    """Actions and weights for a chunk to come.

    The actions are the plan's, plus what the reference is still off it: that is what will have been sent.

    Args:
        plan: in force, with its tail.
        times_ns: (n,) when each action of the coming chunk is due.
        arrival_ns: when that chunk is expected.
        covered_until_ns: when the tail begins.
        off: instant to (dim,) reference minus the plan's own curve.
    Returns:
        actions (n, dim) and weights (n,): 1 for every step that will have begun by then, falling to 0
        where the tail begins; None when it ends before the first of them.
    """
    overlap = int((times_ns <= covered_until_ns).sum())
    if overlap == 0:
        return None
    frozen = min(int((times_ns - plan.period_ns < arrival_ns).sum()), overlap)
    actions = plan.at(times_ns) + np.stack([off(time_ns) for time_ns in times_ns.tolist()])
    return actions.astype(np.float32), soft_weights(len(times_ns), frozen=frozen, overlap=overlap)


def soft_weights(count: int, *, frozen: int, overlap: int) -> Float32:
    """(count,) weights: 1 for i < frozen, then c = (overlap - i) / (overlap - frozen + 1), then 0.

    Source: real-time chunking, eq. 5, with frozen = d (delay) and overlap = H - s; there the weights are
    c (e^c - 1) / (e - 1). Guidance without the network's Jacobian leaves the weights' own shape in the
    chunk, and theirs starts off 2.4 times as steep: ``docs/scheduling.md`` compares them.
    """
    i = np.arange(count)
    soft = np.clip((overlap - i) / (overlap - frozen + 1), 0.0, 1.0)
    weights: Float32 = np.where(i < frozen, 1.0, soft).astype(np.float32)
    return weights

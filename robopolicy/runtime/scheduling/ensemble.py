"""Temporal ensembling (ACT, Zhao et al. 2023, section IV-D): overlapping chunks are averaged in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robopolicy.core.geometry import Float
from robopolicy.runtime.scheduling.plan import Plan


def ensemble(plans: Sequence[Plan], decay: float) -> Float:
    """Waypoints of the newest plan, averaged with what the others say for the same instants.

    A plan weighs exp(-decay * age), its age counted in policy periods between observations.
    ACT weighs the oldest most, exp(-0.01 i) from the oldest on; that is ``decay`` = -0.01.

    Args:
        plans: oldest first; those that do not reach an instant have no say there.
        decay: [1 / policy period].
    Returns:
        (n, dim) waypoints at the newest plan's instants.
    """
    newest = plans[-1]
    times_ns = newest.times_ns
    total = np.zeros((len(times_ns), 1))
    mean = np.zeros_like(newest.points)
    for plan in plans:
        age = (newest.observed_ns - plan.observed_ns) / newest.period_ns
        weight = (np.exp(-decay * age) * plan.covers(times_ns))[:, None]
        mean, total = mean + weight * plan.at(times_ns), total + weight
    averaged: Float = mean / total
    return averaged

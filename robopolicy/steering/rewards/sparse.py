"""-1 for every step until success: the value is minus the discounted time that is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.datasets.episode import Episode

SUCCESS_STEPS = 3


def reward(episode: Episode, facts: Mapping[str, Any]) -> NDArray[np.float64]:
    """(steps,) -1, and 0 on the last ``SUCCESS_STEPS`` of a success.

    Source: V-GPS (Nakamoto et al. 2024), section 4.1.
    """
    rewards = np.full(len(episode), -1.0)
    if episode.success:
        rewards[-SUCCESS_STEPS:] = 0.0
    return rewards

"""1 at the moment of success: discounted, the value tells how likely and how far away it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.datasets.episode import Episode


def reward(episode: Episode, facts: Mapping[str, Any]) -> NDArray[np.float64]:
    """(steps,) 1 on the last step of a success, else 0: the value of n steps before it is gamma^n."""
    rewards = np.zeros(len(episode))
    if episode.success:
        rewards[-1] = 1.0
    return rewards

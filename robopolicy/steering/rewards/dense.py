"""The task's own reward, as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.datasets.episode import Episode
from robopolicy.steering.rewards._needs import needs


@needs(extras=("reward",))
def reward(episode: Episode, facts: Mapping[str, Any]) -> NDArray[np.float64]:
    """(steps,) recorded reward - 1.

    Less one, because nothing follows a success: a reward above 0 would make it better to dawdle near the goal
    than to end there.

    Raises:
        ShapeError: not one reward per step; ConfigError: one above 1.
    """
    values = episode.extra["reward"].value.astype(np.float64)
    if values.shape != (len(episode),):
        raise ShapeError(f"{len(episode)} steps need as many recorded rewards, got {values.shape}")
    if values.max() > 1:
        raise ConfigError(
            f"recorded rewards must not exceed 1, which stands for success, got {values.max():.4g}; "
            "give a function of your own: package.module:function"
        )
    return values - 1.0

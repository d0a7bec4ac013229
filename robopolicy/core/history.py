"""The last few observations, as the window a policy takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import PolicySpecs


class History:
    """Keeps ``observation_horizon`` observations; before enough came, the oldest is repeated.

    The training windows pad episode starts in the same way, so a policy sees what it was trained on.
    """

    def __init__(self, specs: PolicySpecs) -> None:
        self._specs = specs
        self._frames: deque[dict[str, NDArray[Any]]] = deque(maxlen=specs.horizons.observation)

    def reset(self) -> None:
        self._frames.clear()

    def push(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """Add the newest observation; raises if it breaks the specs."""
        self._specs.specs.check_observation(observation)
        frame = {
            name: np.array(observation[name], dtype=spec.dtype)  # a copy: drivers reuse their buffers
            for name, spec in self._specs.specs.observation.items()
        }
        while len(self._frames) < self._specs.horizons.observation - 1:
            self._frames.append(frame)
        self._frames.append(frame)

    def window(self) -> dict[str, NDArray[Any]]:
        """Each observation as (observation_horizon, *shape), oldest first."""
        return {
            name: np.stack([frame[name] for frame in self._frames]) for name in self._specs.specs.observation
        }

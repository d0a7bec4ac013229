"""How long a chunk takes from its observation to its arrival, as measured."""

from __future__ import annotations

from collections import deque

import numpy as np

from robopolicy.core.errors import ConfigError


class DelayMeter:
    """Windowed 95th percentile. A running maximum would keep one slow warm-up for ever.

    Args:
        window: newest samples that count.
        warmup: first samples that do not.
    """

    def __init__(self, window: int = 50, warmup: int = 2) -> None:
        if window < 1 or warmup < 0:
            raise ConfigError(f"need window >= 1 and warmup >= 0, got {window} and {warmup}")
        self._samples: deque[int] = deque(maxlen=window)
        self._skip = warmup
        self._first: int | None = None

    def add(self, delay_ns: int) -> None:
        if self._skip > 0:
            self._skip -= 1
            self._first = delay_ns
        else:
            self._samples.append(delay_ns)

    @property
    def p95_ns(self) -> int:
        """[ns]; during warm-up the newest sample, 0 before any."""
        if self._samples:
            return int(np.quantile(np.array(self._samples), 0.95))
        return self._first or 0

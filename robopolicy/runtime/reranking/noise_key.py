"""Chance that follows from a candidate's noise, where something wants a generator instead."""

from __future__ import annotations

import hashlib

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import Float32


def keyed_by(noise: Float32) -> np.random.Generator:
    """A generator that depends on the noise alone, bit for bit; ConfigError where there is none."""
    if not noise.size:
        raise ConfigError(f"chance cannot follow from noise {noise.shape}, which has no numbers")
    digest = hashlib.sha256(np.ascontiguousarray(noise).tobytes()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))

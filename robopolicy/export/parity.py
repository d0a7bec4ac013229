"""Does the exported bundle do what the torch policy does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import RobopolicyError
from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import Arrays, Policy, draw_noise, keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows

TOLERANCE = 1e-4
CANDIDATES = (1, 16)


class ParityError(RobopolicyError):
    """The bundle's action chunks differ from torch's by more than the tolerance."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences over all compared chunks.

    Args:
        max_abs: in normalised action units, where 1 is half the range seen in the data [-].
        max_abs_physical: in the action spec's units.
        chunks: how many were compared.
    """

    max_abs: float
    max_abs_physical: float
    chunks: int


def compare(
    reference: Policy,
    exported: Policy,
    observations: Sequence[Arrays],
    action_scale: NDArray[np.float64],
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Same observations and noise through both, for 1 and 16 candidates.

    Args:
        observations: windows, each (observation_horizon, *shape).
        action_scale: (action_dim,) of the action normaliser.
    Raises:
        ParityError: beyond the tolerance, or not a number.
    """
    worst, physical, chunks = 0.0, 0.0, 0
    for index, observation in enumerate(observations):
        batch = {name: value[None] for name, value in observation.items()}
        for count in CANDIDATES:
            noise = draw_noise(reference.policy_specs, count, keyed_rng(seed, index, count))[None]
            difference = np.abs(reference.sample(batch, noise) - exported.sample(batch, noise))
            # np.maximum keeps NaN, which max() would drop
            worst = float(np.maximum(worst, (difference / action_scale).max()))
            physical = float(np.maximum(physical, difference.max()))
            chunks += count
    if not worst <= tolerance:
        raise ParityError(f"the exported graphs differ from torch by {worst:.2e}, more than {tolerance:.0e}")
    return Parity(worst, physical, chunks)


def random_observations(
    specs: PolicySpecs, normalisers: Normalisers, count: int, seed: int = 0
) -> list[dict[str, NDArray[Any]]]:
    """Windows drawn uniformly over the training range and 20 % beyond; images of random pixels."""
    rng = keyed_rng(seed, count)
    horizon = specs.horizons.observation
    windows = []
    for _ in range(count):
        window: dict[str, NDArray[Any]] = {}
        for name, spec in specs.specs.observation.items():
            if spec.kind == "image":
                window[name] = rng.integers(0, 256, (horizon, *spec.shape), dtype=np.uint8)
                continue
            affine = normalisers.observation[name]
            flat = affine.inverse(rng.uniform(-1.2, 1.2, (horizon, len(affine.offset))))
            rows = flat.reshape(horizon, *spec.shape[:-1], -1)
            window[name] = rows[..., : spec.shape[-1]].astype(spec.dtype)  # without the angles' sines
        windows.append(window)
    return windows


def recorded_observations(
    store: EpisodeStore, specs: PolicySpecs, count: int
) -> list[dict[str, NDArray[Any]]]:
    """Windows spread evenly over the first episodes of a store."""
    horizons = Horizons(specs.horizons.observation, specs.horizons.observation, 1)
    windows = Windows(store, horizons, tuple(specs.specs.observation), store.names[:4])
    picks = np.linspace(0, len(windows) - 1, count).astype(np.int64)
    batch = windows.batch(picks).observation
    return [{name: value[i] for name, value in batch.items()} for i in range(count)]

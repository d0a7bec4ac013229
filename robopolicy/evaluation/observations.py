"""Observation windows taken from a store: a fixed sample, the same for every policy that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.goals import select
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows


@dataclass(frozen=True)
class Sample:
    """Windows, each (n, observation_horizon, *shape), and the number of the episode of each, (n,)."""

    observation: dict[str, NDArray[Any]]
    episode: NDArray[np.int64]


def sample_windows(
    store: EpisodeStore, specs: PolicySpecs, count: int, *, names: Sequence[str] | None = None, seed: int = 0
) -> Sample:
    """At most ``count`` windows as the policy would see them, drawn once from all steps of the episodes.

    Args:
        names: of the episodes; all of the store unless given.
    Raises:
        ConfigError: count below 1; SpecError: the store lacks an observation of the policy, or has it in
            another shape; StoreError: no episodes.
    """
    if count < 1:
        raise ConfigError(f"need at least one window, got {count}")
    chosen = store.names if names is None else list(names)
    for key, spec in select(store.specs, tuple(specs.specs.observation)).observation.items():
        wanted = specs.specs.observation[key]
        if (spec.shape, spec.kind) != (wanted.shape, wanted.kind):
            raise SpecError(
                f"{store.where}: observation {key!r} is {spec.kind} {spec.shape}, the policy wants "
                f"{wanted.kind} {wanted.shape}"
            )
    windows = Windows(store, specs.horizons, tuple(specs.specs.observation), chosen)
    rows = keyed_rng(seed).permutation(len(windows))[:count]
    rows.sort()
    return Sample(windows.batch(rows).observation, windows.episode[rows].astype(np.int64))

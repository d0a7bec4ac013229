"""Training windows: observation history in, action chunk out, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import SpecError, StoreError
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import DELTAS, ActionSpec, Specs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Batch:
    """Windows around ``batch`` instants.

    Args:
        observation: name to (batch, observation_horizon, *shape).
        action: (batch, prediction_horizon, action_dim); step 0 belongs to the oldest observation.
        mask: (batch, prediction_horizon) True where the action lies inside the episode.
    """

    observation: dict[str, NDArray[Any]]
    action: NDArray[np.float32]
    mask: NDArray[np.bool_]


class Windows:
    """Every step of every episode as one window, held in memory.

    Windows never cross episodes. Observations before the start repeat the first one. Actions before the
    start and after the end hold still: absolute commands repeat the nearest one, increments become
    zero; the mask says which those are.

    Raises:
        StoreError: no episodes; SpecError: an action part is relative to the observation, which no
        policy here undoes yet.
    """

    def __init__(
        self,
        store: EpisodeStore,
        horizons: Horizons,
        keys: tuple[str, ...],
        names: list[str] | None = None,
    ) -> None:
        self.specs = store.specs.select(keys)
        self.horizons = horizons
        for part in self.specs.action.parts:
            if part.reference == "relative" and part.space not in DELTAS:
                raise SpecError(
                    f"actions {part.space!r} relative to the observation cannot be trained on yet"
                )
        self.names = store.names if names is None else names
        if not self.names:
            raise StoreError(f"{store.path} has no episodes")
        frames = [align(store.read(name, keys), self.specs) for name in self.names]
        self.observation = {
            key: np.concatenate([observation[key] for observation, _ in frames]) for key in keys
        }
        self.action = np.concatenate([action for _, action in frames])
        lengths = np.array([len(action) for _, action in frames])
        stops = np.cumsum(lengths)
        self._first = np.repeat(stops - lengths, lengths)
        self._last = np.repeat(stops - 1, lengths)
        self._hold = hold_action(self.specs.action)

    def __len__(self) -> int:
        return len(self.action)

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """Gather windows whose current observation is frame ``indices`` (batch,)."""
        first, last = self._first[indices, None], self._last[indices, None]
        start = indices[:, None] - self.horizons.action_start
        seen = np.maximum(start + np.arange(self.horizons.observation), first)
        steps = start + np.arange(self.horizons.prediction)
        mask = (steps >= first) & (steps <= last)
        action = self.action[np.clip(steps, first, last)]
        action = np.where(~mask[..., None] & ~np.isnan(self._hold), self._hold, action)
        observation = {key: value[seen] for key, value in self.observation.items()}
        return Batch(observation, action.astype(np.float32), mask)

    def epoch(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Shuffled full batches; the order is a pure function of (seed, epoch).

        ``skip`` leaves out that many leading batches, so that a resumed run continues exactly.
        """
        order = keyed_rng(seed, epoch).permutation(len(self))
        for start in range(skip * batch_size, len(order) - batch_size + 1, batch_size):
            yield self.batch(order[start : start + batch_size])


def align(episode: Episode, specs: Specs) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """Observations at the instants of the actions: the newest sample not from the future.

    Returns:
        observations, each (steps, *shape), and actions (steps, action_dim).
    """
    observation = {}
    for key in specs.observation:
        signal = episode.observation[key]
        newest = np.searchsorted(signal.time_ns, episode.action.time_ns, side="right") - 1
        observation[key] = signal.value[np.maximum(newest, 0)]
    return observation, episode.action.value.astype(np.float32)


def hold_action(spec: ActionSpec) -> NDArray[np.float32]:
    """(action_dim,) the command that means "stay": NaN where it is the previous command itself."""
    hold = np.full(spec.dim, np.nan, dtype=np.float32)
    for part, place in spec.slices():
        if part.space == "joint_delta":
            hold[place] = 0.0
        elif part.space == "ee_delta":
            hold[place] = (0, 0, 0, 1, 0, 0, 0, 1, 0)  # no translation, identity rotation
    return hold

"""Training windows: observation history in, action chunk out, in a seeded order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import SpecError, StoreError
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import DELTAS, ActionSpec, Specs
from robopolicy.datasets import columns
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
    """Every step of every episode as one window.

    Windows never cross episodes. Observations before the start repeat the first one. Actions before the
    start and after the end hold still: absolute commands repeat the nearest one, increments become
    zero; the mask says which those are.

    Args:
        keys: observations to sample.
        names: episodes; all of the store's version unless given.
        memory_bytes: what may be held in memory. Cameras that do not fit are decoded when sampled, states
            that do not fit lie in a temporary file; results are the same.
        threads: that decode frames.
        on_progress: told after each episode how many of how many are read.
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
        *,
        memory_bytes: int = 2 << 30,
        threads: int = 1,
        on_progress: Callable[[int, int], None] | None = None,
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
            raise StoreError(f"{store.where} has no episodes")
        lengths = np.array([store.entry(name).length for name in self.names])
        stops = np.cumsum(lengths)
        self._first = np.repeat(stops - lengths, lengths)
        self._last = np.repeat(stops - 1, lengths)
        total = int(stops[-1])
        held, left = columns.new_array((total, self.specs.action.dim), "float32", memory_bytes)
        self.action: NDArray[np.float32] = held
        self.columns = columns.plan(self.specs, total, left, store.storage, threads)
        starts = (stops - lengths).tolist()
        with ThreadPoolExecutor(store.storage.parallel) as pool:
            filled = pool.map(partial(self._fill, store), self.names, starts)
            for count, _ in enumerate(filled, start=1):
                if on_progress is not None:
                    on_progress(count, len(self.names))
        self._hold = hold_action(self.specs.action)

    def _fill(self, store: EpisodeStore, name: str, start: int) -> None:
        reader = store.reader(name)
        rows = slice(start, start + reader.entry.length)
        steps = reader.times("action")
        self.action[rows] = reader.values("action")
        for key, column in self.columns.items():
            signal = f"observation/{key}"
            column.fill(rows, reader, signal, newest(reader.times(signal), steps))

    def __len__(self) -> int:
        return len(self.action)

    @property
    def observation(self) -> dict[str, NDArray[Any]]:
        """(windows, *shape) of every state, at the instants of the actions."""
        held = self.columns.items()
        return {key: c.value for key, c in held if isinstance(c, columns.Held) and c.kind == "state"}

    @property
    def memory_bytes(self) -> int:
        """Held in memory by the columns and the action [bytes]."""
        index = self._first.nbytes + self._last.nbytes
        action = 0 if isinstance(self.action, np.memmap) else self.action.nbytes
        return index + action + sum(column.memory_bytes for column in self.columns.values())

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """Gather windows whose current observation is frame ``indices`` (batch,)."""
        first, last = self._first[indices, None], self._last[indices, None]
        start = indices[:, None] - self.horizons.action_start
        steps = start + np.arange(self.horizons.prediction)
        nearest = np.clip(steps, first, last)
        mask = steps == nearest
        action = np.asarray(self.action).take(nearest, axis=0, mode="clip")
        if self._hold is not None:
            action = np.where(~mask[..., None] & ~np.isnan(self._hold), self._hold, action)
        seen = np.maximum(start + np.arange(self.horizons.observation), first)
        observation = {key: column.take(seen) for key, column in self.columns.items()}
        return Batch(observation, action, mask)

    def batches_per_epoch(self, batch_size: int) -> int:
        """Full batches in one pass."""
        return len(self) // batch_size

    def order(self, *, seed: int, epoch: int) -> NDArray[np.int64]:
        """(windows,) the order of an epoch: a pure function of (seed, epoch)."""
        return keyed_rng(seed, epoch).permutation(len(self))

    def epoch(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Shuffled full batches; the order is a pure function of (seed, epoch).

        ``skip`` leaves out that many leading batches, so that a resumed run continues exactly.
        """
        order = self.order(seed=seed, epoch=epoch)
        for start in range(skip * batch_size, len(order) - batch_size + 1, batch_size):
            yield self.batch(order[start : start + batch_size])


def newest(times: NDArray[np.int64], instants: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every instant the index of the newest sample that is not later; the first one when all are."""
    return np.maximum(np.searchsorted(times, instants, side="right") - 1, 0)


def align(episode: Episode, specs: Specs) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """Observations at the instants of the actions: the newest sample not from the future.

    Returns:
        observations, each (steps, *shape), and actions (steps, action_dim).
    """
    observation = {}
    for key in specs.observation:
        signal = episode.observation[key]
        observation[key] = signal.value[newest(signal.time_ns, episode.action.time_ns)]
    return observation, episode.action.value.astype(np.float32)


def hold_action(spec: ActionSpec) -> NDArray[np.float32] | None:
    """(action_dim,) the command that means "stay": NaN where it is the previous command itself; None when
    that is so throughout."""
    hold = np.full(spec.dim, np.nan, dtype=np.float32)
    for part, place in spec.slices():
        if part.space == "joint_delta":
            hold[place] = 0.0
        elif part.space == "ee_delta":
            hold[place] = (0, 0, 0, 1, 0, 0, 0, 1, 0)  # no translation, identity rotation
    return None if np.isnan(hold).all() else hold

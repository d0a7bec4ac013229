"""Training windows: observation history in, action chunk out, in a seeded order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, SpecError, StoreError
from robopolicy.core.goals import select, sources
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import DELTAS, ActionSpec, Specs
from robopolicy.datasets import columns
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.goals import GoalConfig, constant, steps_of_goals
from robopolicy.datasets.store import EpisodeStore

WHOLE = slice(None)
ORDER, _AHEAD = 0, 1  # last part of the keys of an epoch's random numbers, to tell what they are for
Share = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Windows around ``batch`` instants.

    Args:
        observation: name to (batch, observation_horizon, *shape); goals are the same at every instant.
        action: (batch, prediction_horizon, action_dim); step 0 belongs to the oldest observation.
        mask: (batch, prediction_horizon) True where the action lies inside the episode.
        instruction: (batch,) row of ``WindowSource.instructions``: what the episode's was.
    """

    observation: dict[str, NDArray[Any]]
    action: NDArray[np.float32]
    mask: NDArray[np.bool_]
    instruction: NDArray[np.int64]


class WindowSource(ABC):
    """What training draws batches from: the windows of one store, or of several (``Mixture``).

    Attributes:
        specs, horizons: of the windows.
        instructions: the distinct texts, in order of first appearance; an episode without one has "".
    """

    specs: Specs
    horizons: Horizons
    instructions: list[str]
    samples_ahead: bool  #: whether goals are drawn from the future

    @abstractmethod
    def __len__(self) -> int:
        """Windows."""

    @property
    @abstractmethod
    def observation(self) -> dict[str, NDArray[Any]]:
        """(windows, *shape) of every state at the instants of the actions, to fit normalisers on."""

    @property
    @abstractmethod
    def action(self) -> NDArray[np.float32]:
        """(windows, action_dim), to fit normalisers on."""

    @property
    @abstractmethod
    def memory_bytes(self) -> int:
        """What is held in memory [bytes]."""

    @property
    @abstractmethod
    def on_demand(self) -> list[str]:
        """Cameras that did not fit in memory and are decoded when sampled."""

    @property
    @abstractmethod
    def names_by_store(self) -> dict[str, list[str]]:
        """Path or URL of each store to the episodes of it that are used."""

    @abstractmethod
    def batch(self, indices: NDArray[np.int64], ahead: NDArray[np.float64] | None = None) -> Batch:
        """Gather the windows ``indices`` (batch,).

        Args:
            ahead: (batch,) in [0, 1): how far between the next step and the end of the episode the goals
                lie; None takes the end.
        Raises:
            ConfigError: an index out of range.
        """

    @abstractmethod
    def order(self, *, seed: int, epoch: int) -> NDArray[np.int64]:
        """(windows,) which windows an epoch draws: a pure function of (seed, epoch)."""

    def batches_per_epoch(self, batch_size: int) -> int:
        """Full batches in one pass."""
        return len(self) // batch_size

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, skip: int = 0, share: Share = WHOLE
    ) -> Iterator[Batch]:
        """Shuffled full batches; windows and goals are a pure function of (seed, epoch).

        Args:
            skip: leaves out that many leading batches, so that a resumed run continues exactly.
            share: rows of every batch that are wanted, for processes that share the batches.
        """
        order = self.order(seed=seed, epoch=epoch)
        ahead = keyed_rng(seed, epoch, _AHEAD).random(len(order)) if self.samples_ahead else None
        for start in range(skip * batch_size, len(order) - batch_size + 1, batch_size):
            rows = slice(start, start + batch_size)
            yield self.batch(order[rows][share], None if ahead is None else ahead[rows][share])


class Windows(WindowSource):
    """Every step of every episode as one window.

    Windows never cross episodes. Observations before the start repeat the first one. Actions before the
    start and after the end hold still: absolute commands repeat the nearest one, increments become
    zero; the mask says which those are. Observations "goal.KEY" are KEY later in the episode, see
    ``datasets.goals``; KEY itself need not be among the keys.

    Args:
        keys: observations to sample.
        names: episodes; all of the store's version unless given.
        goal: how goals are drawn.
        memory_bytes: what may be held in memory. Cameras that do not fit are decoded when sampled, states
            that do not fit lie in a temporary file; results are the same.
        threads: that decode frames.
        on_progress: told after each episode how many of how many are read.
    Raises:
        StoreError: no episodes; SpecError: an action part is relative to the observation, which no
        policy here undoes yet, or there is no such observation.
    """

    def __init__(
        self,
        store: EpisodeStore,
        horizons: Horizons,
        keys: tuple[str, ...],
        names: list[str] | None = None,
        *,
        goal: GoalConfig | None = None,
        memory_bytes: int = 2 << 30,
        threads: int = 1,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.specs = select(store.specs, keys)
        self._goals = sources(store.specs, keys)
        self.samples_ahead = bool(self._goals) and goal is not None and goal.sampling == "future"
        self.horizons = horizons
        for part in self.specs.action.parts:
            if part.reference == "relative" and part.space not in DELTAS:
                raise SpecError(
                    f"actions {part.space!r} relative to the observation cannot be trained on yet"
                )
        self.names = store.names if names is None else names
        self.where = store.where
        if not self.names:
            raise StoreError(f"{store.where} has no episodes")
        lengths = np.array([store.entry(name).length for name in self.names])
        texts = [store.entry(name).instruction for name in self.names]
        self.instructions = list(dict.fromkeys(texts))
        self._text = np.array([self.instructions.index(text) for text in texts], np.int64)
        stops = np.cumsum(lengths)
        self._first, self._last = stops - lengths, stops - 1
        self._episode = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        total = int(stops[-1])
        held, left = columns.new_array((total, self.specs.action.dim), "float32", memory_bytes)
        self._action: NDArray[np.float32] = held
        kept = dict.fromkeys(self._goals.get(key, key) for key in keys)  # a goal shares its source's column
        sensed = store.specs.select(tuple(kept))
        self.columns = columns.plan(sensed, total, left, store.storage, threads)
        starts = (stops - lengths).tolist()
        with ThreadPoolExecutor(store.storage.parallel) as pool:
            filled = pool.map(partial(self._fill, store), self.names, starts)
            for count, _ in enumerate(filled, start=1):
                if on_progress is not None:
                    on_progress(count, len(self.names))
        self._hold = hold_action(self.specs.action)
        self._steps = np.arange(horizons.prediction) - horizons.action_start  # from the current one

    def _fill(self, store: EpisodeStore, name: str, start: int) -> None:
        reader = store.reader(name)
        rows = slice(start, start + reader.entry.length)
        steps = reader.times("action")
        self._action[rows] = reader.values("action")
        for key, column in self.columns.items():
            signal = f"observation/{key}"
            column.fill(rows, reader, signal, newest(reader.times(signal), steps))

    def __len__(self) -> int:
        return len(self._action)

    @property
    def action(self) -> NDArray[np.float32]:
        return self._action

    @property
    def observation(self) -> dict[str, NDArray[Any]]:
        """(windows, *shape) of every state at the instants of the actions; of a goal, its source's."""
        found = {key: self.columns[self._goals.get(key, key)] for key in self.specs.observation}
        return {key: c.value for key, c in found.items() if isinstance(c, columns.Held) and c.kind == "state"}

    @property
    def memory_bytes(self) -> int:
        """Held in memory by the columns, the action and the index [bytes]."""
        index = sum(a.nbytes for a in (self._episode, self._first, self._last, self._text))
        action = 0 if isinstance(self._action, np.memmap) else self._action.nbytes
        return index + action + sum(column.memory_bytes for column in self.columns.values())

    @property
    def on_demand(self) -> list[str]:
        return [key for key, column in self.columns.items() if isinstance(column, columns.OnDemand)]

    @property
    def names_by_store(self) -> dict[str, list[str]]:
        return {self.where: list(self.names)}

    @property
    def episode(self) -> NDArray[np.int32]:
        """(windows,) which of ``names`` each window belongs to."""
        return self._episode

    @property
    def instruction(self) -> NDArray[np.int64]:
        """(windows,) row of ``instructions`` that each window's episode has."""
        return self._text.take(self._episode)

    @property
    def hindsight(self) -> list[str]:
        """Goals that are taken from the episode itself; others were recorded."""
        return list(self._goals)

    def batch(self, indices: NDArray[np.int64], ahead: NDArray[np.float64] | None = None) -> Batch:
        """Gather windows whose current observation is frame ``indices`` (batch,)."""
        check_indices(indices, len(self))
        episode = self._episode.take(indices)
        first, last = self._first.take(episode), self._last.take(episode)
        steps = indices[:, None] + self._steps
        inside = np.maximum(steps, first[:, None])
        seen = inside[:, : self.horizons.observation]
        nearest = np.minimum(inside, last[:, None])
        mask = steps == nearest
        action = np.asarray(self._action).take(nearest, axis=0, mode="clip")
        if self._hold is not None:
            action = np.where(~mask[..., None] & ~np.isnan(self._hold), self._hold, action)
        wanted = steps_of_goals(indices, last, ahead) if self._goals else last
        observation = {}
        for key in self.specs.observation:
            if key in self._goals:
                goal = self.columns[self._goals[key]].take(wanted)
                observation[key] = constant(goal, self.horizons.observation)
            else:
                observation[key] = self.columns[key].take(seen)
        return Batch(observation, action, mask, self._text.take(episode))

    def order(self, *, seed: int, epoch: int) -> NDArray[np.int64]:
        """(windows,) the order of an epoch: a pure function of (seed, epoch)."""
        return keyed_rng(seed, epoch, ORDER).permutation(len(self))


def check_indices(indices: NDArray[np.int64], count: int) -> None:
    """Raise ConfigError unless all lie in 0..count - 1: a negative one would name a window of another row."""
    if len(indices) and indices.astype(np.uint64).max() >= count:  # negative ones become very large
        bad = indices[(indices < 0) | (indices >= count)]
        raise ConfigError(f"windows are numbered 0..{count - 1}, got {bad[:5].tolist()}")


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

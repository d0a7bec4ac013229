"""Windows of several stores as one source of batches, each store with a weight of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import Specs
from robopolicy.datasets.windows import ORDER, Batch, Windows, WindowSource, check_indices

_STORE, _SPLIT = 2, 3  # parts of the keys of random numbers, to tell what they are for


class Mixture(WindowSource):
    """Several stores in one policy's training.

    Windows are numbered through, those of the first store first. An epoch draws as many as there are.
    Without weights it draws each once. With weights each draw chooses its store by them, and every store
    deals out its own windows in shuffled passes: none comes twice before all came once, so a small store with
    a large weight is passed several times an epoch, and a large one in part. The order is a pure function of
    (seed, epoch), as that of one store is.

    ``observation`` and ``action``, which normalisers are fitted on, hold every window of every store once,
    whatever the weights: the extremes (``min_max``) do not depend on them, and mean and deviation
    (``gaussian``) are of the data, not of the draws.

    Args:
        parts: one per store; their specs (the selected keys) and horizons are equal.
        weights: of the stores, any positive numbers; their ratios are those of the draws. None weighs each
            by its windows.
    Raises:
        ConfigError: no parts, horizons that differ, or weights that do not fit.
        SpecError: specs that differ; says in what, and which keys they have in common.
    """

    def __init__(self, parts: Sequence[Windows], weights: Sequence[float] | None = None) -> None:
        if not parts:
            raise ConfigError("a mixture needs the windows of at least one store")
        self.parts = list(parts)
        first = self.parts[0]
        for part in self.parts[1:]:
            _check_alike(first, part)
        self.weights = None if weights is None else _shares(weights, len(self.parts))
        self.specs, self.horizons = first.specs, first.horizons
        self.samples_ahead = any(part.samples_ahead for part in self.parts)
        self.instructions = list(dict.fromkeys(text for part in self.parts for text in part.instructions))
        places = {text: place for place, text in enumerate(self.instructions)}
        self._texts = [np.array([places[t] for t in part.instructions], np.int64) for part in self.parts]
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def observation(self) -> dict[str, NDArray[Any]]:
        """(windows, *shape) of every state, store after store; a new array."""
        every = [part.observation for part in self.parts]
        return {key: np.concatenate([one[key] for one in every]) for key in every[0]}

    @property
    def action(self) -> NDArray[np.float32]:
        """(windows, action_dim), store after store; a new array."""
        return np.concatenate([part.action for part in self.parts])

    @property
    def memory_bytes(self) -> int:
        return sum(part.memory_bytes for part in self.parts)

    @property
    def on_demand(self) -> list[str]:
        return list(dict.fromkeys(key for part in self.parts for key in part.on_demand))

    @property
    def names_by_store(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for part in self.parts:
            found.setdefault(part.where, []).extend(part.names)
        return found

    def batch(self, indices: NDArray[np.int64], ahead: NDArray[np.float64] | None = None) -> Batch:
        """Gather windows (batch,) of whichever stores they are in; rows stay in this order."""
        check_indices(indices, len(self))
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        rows = [np.flatnonzero(owner == place) for place in range(len(self.parts))]
        batches = [
            self._of_part(place, indices[mine], None if ahead is None else ahead[mine])
            for place, mine in enumerate(rows)
            if len(mine)
        ]
        if len(batches) == 1:
            return batches[0]
        order = np.argsort(np.concatenate(rows))  # where each row of the batch lies among those gathered
        return Batch(
            {key: _rows([b.observation[key] for b in batches], order) for key in self.specs.observation},
            _rows([b.action for b in batches], order),
            _rows([b.mask for b in batches], order),
            _rows([b.instruction for b in batches], order),
        )

    def order(self, *, seed: int, epoch: int) -> NDArray[np.int64]:
        """(windows,) which windows an epoch draws: a pure function of (seed, epoch)."""
        rng = keyed_rng(seed, epoch, ORDER)
        if self.weights is None:
            return rng.permutation(len(self))
        owner = rng.choice(len(self.parts), size=len(self), p=self.weights)
        order = np.empty(len(self), np.int64)
        for place, part in enumerate(self.parts):
            rows = np.flatnonzero(owner == place)
            dealer = keyed_rng(seed, epoch, _STORE, place)
            passes = [dealer.permutation(len(part)) for _ in range(math.ceil(len(rows) / len(part)))]
            order[rows] = self._starts[place] + np.concatenate([np.empty(0, np.int64), *passes])[: len(rows)]
        return order

    def _of_part(self, place: int, indices: NDArray[np.int64], ahead: NDArray[np.float64] | None) -> Batch:
        batch = self.parts[place].batch(indices - self._starts[place], ahead)
        text = self._texts[place].take(batch.instruction)
        return Batch(batch.observation, batch.action, batch.mask, text)


def split_episodes(names: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Episodes to train on and episodes to hold out, by chance; both in the given order.

    Args:
        fraction: to hold out, in 0..1, rounded; above 0 at least one episode is held out.
        seed: the same names, fraction and seed give the same split.
    Raises:
        ConfigError: fraction out of range, or nothing left to train on.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the fraction of held-out episodes must lie in [0, 1), got {fraction}")
    count = max(1, round(fraction * len(names))) if fraction else 0
    if count >= len(names):
        raise ConfigError(f"holding out {count} of {len(names)} episodes leaves none to train on")
    chosen = set(keyed_rng(seed, _SPLIT).permutation(len(names))[:count].tolist())
    return (
        [name for place, name in enumerate(names) if place not in chosen],
        [name for place, name in enumerate(names) if place in chosen],
    )


def _check_alike(first: Windows, other: Windows) -> None:
    if first.horizons != other.horizons:
        raise ConfigError(f"horizons differ: {first.horizons} and {other.horizons}")
    if first.specs != other.specs:
        differences = spec_differences(first.specs, other.specs, names=(first.where, other.where))
        common = [k for k, s in first.specs.observation.items() if other.specs.observation.get(k) == s]
        advice = f"both have what --train.keys {' '.join(common)} chooses"
        raise SpecError(
            f"one policy cannot learn from both {first.where} and {other.where}: {'; '.join(differences)}; "
            + (advice if common else "they share no observation")
        )


def spec_differences(first: Specs, second: Specs, *, names: tuple[str, str]) -> list[str]:
    """What two specs disagree on, in words; nothing for equal ones.

    Args:
        names: of what has them.
    """
    said, observations = list[str](), (first.observation, second.observation)
    for name, own, others in zip(names, observations, observations[::-1]):
        if only := [key for key in own if key not in others]:
            said.append(f"only {name} has {only}")
    pairs: list[tuple[str, Any, Any]] = [
        (repr(key), spec, second.observation[key])
        for key, spec in first.observation.items()
        if key in second.observation
    ]
    pairs += [(field, getattr(first, field), getattr(second, field)) for field in ("policy_rate", "robot")]
    pairs += [("the action", first.action, second.action)]
    for name, one, two in pairs:
        if one != two:
            said.append(f"{name} is {_told(one, two)} in {names[0]} and {_told(two, one)} in {names[1]}")
    return said


def _told(value: Any, other: Any) -> str:
    """A value; of a dataclass the fields that differ."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    fields = [f.name for f in dataclasses.fields(value) if getattr(value, f.name) != getattr(other, f.name)]
    return ", ".join(f"{name} {getattr(value, name)!r}" for name in fields)


def _shares(weights: Sequence[float], count: int) -> NDArray[np.float64]:
    values = np.array(weights, np.float64)
    if values.shape != (count,) or not np.isfinite(values).all() or not (values > 0).all():
        raise ConfigError(f"{count} stores need as many positive weights, got {list(weights)}")
    shares: NDArray[np.float64] = values / values.sum()
    return shares


def _rows(parts: list[NDArray[Any]], order: NDArray[np.intp]) -> NDArray[Any]:
    return np.concatenate(parts).take(order, axis=0)

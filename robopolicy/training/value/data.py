"""Which episodes a critic learns from: all, the failed ones too, some of either kind held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.core.errors import ConfigError, StoreError
from robopolicy.core.policy import keyed_rng
from robopolicy.datasets.store import EpisodeStore
from robopolicy.training.data import StoreUse
from robopolicy.training.value.config import ValueTrainConfig

_SPLIT = 9  # part of the keys of random numbers, to tell what they are for
Stores = Sequence[tuple[EpisodeStore, StoreUse]]


@dataclass(frozen=True)
class Outcomes:
    """How many episodes ended how."""

    successes: int
    failures: int
    unjudged: int

    def __str__(self) -> str:
        unjudged = f", {self.unjudged} that nobody judged" if self.unjudged else ""
        return f"{self.successes} successful and {self.failures} failed episodes{unjudged}"

    def warnings(self, where: str = "") -> Iterator[str]:
        """What a critic cannot learn from these.

        Args:
            where: their store, where there are several: windows of different stores are never compared.
        """
        yield from (f"{where}: {told}" if where else told for told in self._warnings())

    def _warnings(self) -> Iterator[str]:
        if self.unjudged:
            yield f"{self.unjudged} episodes that nobody judged count as failed"
        if not self.successes + self.failures:
            yield "no episode says whether it succeeded: values will not discriminate"
            return
        if not self.failures:
            yield "no failed episodes: values will not discriminate, all that was done here ended well"
        if not self.successes:
            yield "no successful episodes: values will not discriminate, all that was done here failed"


def open_stores(
    paths: Sequence[str], versions: Sequence[int | str | None], config: ValueTrainConfig
) -> list[tuple[EpisodeStore, StoreUse]]:
    """Open stores and hold out episodes: of each store, outcome and instruction their share.

    Args:
        versions: one per store, None for its newest.
    Raises:
        StoreError: no such store, or one without episodes that can be used.
        ConfigError: the share to hold out leaves none to train on.
    """
    found = []
    for path, version in zip(paths, versions):
        store = EpisodeStore.open(path, version)
        if not store.names:
            raise StoreError(f"{path} has no episodes to train on")
        used = [n for n in store.names if config.unjudged == "fail" or store.facts(n)["success"] is not None]
        if not used:
            raise StoreError(
                f"{path}: nobody judged any of its {len(store.names)} episodes; --train.unjudged fail takes "
                "them as failed, where a reward of your own tells more"
            )
        training, held_out = _split(store, used, config.held_out.fraction, config.seed)
        found.append((store, StoreUse(str(path), store.version, store.digest, training, held_out, 0)))
    return found


def outcomes(stores: Sequence[tuple[EpisodeStore, StoreUse]], *, held_out: bool = False) -> Outcomes:
    """Of the episodes that are trained on, or of those that are held out."""
    counts: Counter[bool | None] = Counter()
    for store, use in stores:
        names = use.held_out if held_out else use.episodes
        counts.update(store.facts(name)["success"] for name in names)
    return Outcomes(counts[True], counts[False], counts[None])


def _split(
    store: EpisodeStore, names: Sequence[str], fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whole episodes; an outcome that only one episode had is not held out."""
    kinds: dict[bool | None, list[str]] = {}
    for name in names:
        kinds.setdefault(store.facts(name)["success"], []).append(name)
    out: set[str] = set()
    for place, alike in enumerate(kinds.values()):
        if fraction and len(alike) > 1:
            texts = [store.facts(name)["instruction"] for name in alike]
            count = max(1, round(fraction * len(alike)))
            if count == len(alike):
                raise ConfigError(f"holding out {count} of {count} episodes leaves none to train on")
            rows = spread_over(texts, count, keyed_rng(seed, place, _SPLIT))
            out |= {alike[row] for row in rows}
    return tuple(n for n in names if n not in out), tuple(n for n in names if n in out)


def spread_over(kinds: Sequence[str], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` random rows, of each kind its share, rounded up or down."""
    shuffled = rng.permutation(len(kinds)).tolist()
    line = sorted(shuffled, key=lambda row: kinds[row])  # stable: by chance within a kind
    places = ((np.arange(count) + rng.random()) * len(kinds) / count).astype(int)
    return [line[place] for place in places]

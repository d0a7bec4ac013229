"""What a training learns from: windows of one or several stores, some episodes held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress

from robopolicy.core.errors import ConfigError, StoreError
from robopolicy.core.normalise import Normalisers
from robopolicy.core.specs import Specs
from robopolicy.datasets.mixture import Mixture, split_episodes
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Batch, Windows, WindowSource
from robopolicy.training.config import LoopConfig, TrainConfig


@dataclass(frozen=True)
class StoreUse:
    """Which episodes of which store, as the run records it.

    Args:
        store: path or URL; version and digest tell which data exactly.
        episodes: that are trained on; held_out: that are not.
        failures_left_out: episodes marked as failed.
    """

    store: str
    version: int
    digest: str
    episodes: tuple[str, ...]
    held_out: tuple[str, ...]
    failures_left_out: int


@dataclass(frozen=True)
class Data:
    """Windows to train on, windows to measure on (None without), and where they come from."""

    windows: WindowSource
    held_out: WindowSource | None
    uses: tuple[StoreUse, ...]


def open_stores(
    paths: Sequence[str],
    versions: Sequence[int | str | None],
    config: TrainConfig,
    *,
    names: Sequence[str] | None = None,
) -> list[tuple[EpisodeStore, StoreUse]]:
    """Choose episodes.

    Args:
        versions: one per store, None for its newest.
        names: episodes to use, of a single store; None takes all.
    Raises:
        StoreError, ConfigError: no such store or episode, or nothing to train on.
    """
    if names is not None and len(paths) > 1:
        raise ConfigError("episodes can be chosen by name in a single store")
    found = []
    for path, version in zip(paths, versions):
        store = EpisodeStore.open(path, version)
        taken = list(store.names if names is None else names)
        judged = {name: store.facts(name)["success"] for name in taken}
        used = [name for name in taken if config.include_failures or judged[name] is not False]
        if not used:
            raise StoreError(f"{path} has no episodes to train on ({len(taken)} failed ones are left out)")
        training, held_out = split_episodes(used, config.held_out.fraction, config.seed)
        left_out = len(taken) - len(used)
        use = StoreUse(str(path), store.version, store.digest, tuple(training), tuple(held_out), left_out)
        found.append((store, use))
    return found


def load(
    stores: Sequence[tuple[EpisodeStore, StoreUse]],
    weights: Sequence[float],
    config: LoopConfig,
    console: Console,
) -> Data:
    """Read the chosen episodes.

    Args:
        weights: of the stores in a batch; empty weighs each by its windows.
    Raises:
        ConfigError: fewer windows than one batch, weights that do not fit; SpecError: no such observation,
        or stores that one policy cannot learn from.
    """
    if weights and len(weights) != len(stores):
        raise ConfigError(f"{len(stores)} stores need as many weights, got {list(weights)}")
    budget = int(config.memory_gib * 2**30)
    windows, held_out = list[Windows](), list[Windows]()
    for store, use in stores:
        windows.append(_windows(store, use.episodes, config, budget, console))
        budget = max(0, budget - windows[-1].memory_bytes)
    for store, use in stores:
        if use.held_out:
            held_out.append(_windows(store, use.held_out, config, budget, console))
            budget = max(0, budget - held_out[-1].memory_bytes)
    source: WindowSource = Mixture(windows, weights or None) if len(windows) > 1 else windows[0]
    if len(source) < config.batch_size:
        raise ConfigError(f"{len(source)} windows are fewer than one batch of {config.batch_size}")
    measured: WindowSource | None = Mixture(held_out) if held_out else None
    if source.on_demand:
        console.print(
            f"{source.on_demand} exceed {config.memory_gib} GiB and are decoded when sampled "
            "(--train.memory-gib)"
        )
    return Data(source, measured, tuple(use for _, use in stores))


def _windows(
    store: EpisodeStore, names: Sequence[str], config: LoopConfig, budget: int, console: Console
) -> Windows:
    keys = config.keys or tuple(k for k, s in store.specs.observation.items() if s.kind == "state")
    with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("loading demonstrations", total=len(names))
        return Windows(
            store,
            config.horizons,
            keys,
            list(names),
            goal=config.goal,
            memory_bytes=budget,
            threads=config.loader_threads,
            on_progress=lambda done, _: progress.update(task, completed=done),
        )


def normalised(batch: Batch, specs: Specs, normalisers: Normalisers) -> Batch:
    """What the network sees of a batch."""
    observation: dict[str, Any] = normalisers.observations(specs, batch.observation)
    return Batch(observation, normalisers.action.forward(batch.action), batch.mask, batch.instruction)

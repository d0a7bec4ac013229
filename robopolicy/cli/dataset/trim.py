"""Count only some steps of an episode; the others stay in older versions."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import changed
from robopolicy.core.errors import ConfigError
from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What to keep.

    Args:
        store: path.
        episode: its number.
        start: first step to keep.
        stop: the step after the last to keep; the end unless given.
    """

    store: tyro.conf.Positional[str]
    episode: tyro.conf.Positional[str]
    start: int = 0
    stop: int | None = None


def run(args: Args) -> int:
    store = EpisodeStore.open(args.store)
    names = editing.resolve(store, [args.episode])
    if len(names) != 1:
        raise ConfigError(f"one episode at a time; {args.episode!r} are {len(names)}")
    stop = store.entry(names[0]).length if args.stop is None else args.stop
    editing.trim(store, names[0], args.start, stop)
    return changed(store, Console())

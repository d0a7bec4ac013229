"""Leave episodes out of the next version; older versions keep them."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import changed
from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What to leave out.

    Args:
        store: path.
        episodes: for example 3 or 10-20.
    """

    store: tyro.conf.Positional[str]
    episodes: tyro.conf.Positional[tuple[str, ...]]


def run(args: Args) -> int:
    store = EpisodeStore.open(args.store)
    editing.delete(store, editing.resolve(store, args.episodes))
    return changed(store, Console())

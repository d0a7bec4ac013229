"""Make a new version that holds what an old one held."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import changed
from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """Which version.

    Args:
        store: path.
        version: a number or a tag.
    """

    store: tyro.conf.Positional[str]
    version: tyro.conf.Positional[str]


def run(args: Args) -> int:
    old = EpisodeStore.open(args.store, args.version).version
    store = EpisodeStore.open(args.store)
    editing.restore(store, old)
    return changed(store, Console())

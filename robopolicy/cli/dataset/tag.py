"""Give a version a name, or list the names."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console

from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """Which name for which version.

    Args:
        store: path.
        name: letters, digits, "_", "." and "-"; lists the tags when absent.
        version: its number; the newest unless given.
    """

    store: tyro.conf.Positional[str]
    name: tyro.conf.Positional[str | None] = None
    version: int | None = None


def run(args: Args) -> int:
    console, store = Console(), EpisodeStore.open(args.store)
    if args.name is not None:
        number = editing.tag(store, args.name, args.version)
        console.print(f"{args.name} is version {number} of {args.store}", markup=False, soft_wrap=True)
        return 0
    for name, number in editing.tags(store).items():
        console.print(f"{name}: version {number}")
    return 0

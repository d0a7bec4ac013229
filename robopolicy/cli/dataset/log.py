"""The versions of a store, the newest first."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.table import Table

from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """Which store.

    Args:
        store: path or URL.
        limit: how many versions to show; 0 for all.
    """

    store: tyro.conf.Positional[str]
    limit: int = 30


def run(args: Args) -> int:
    store = EpisodeStore.open(args.store)
    tags: dict[int, list[str]] = {}
    for name, number in editing.tags(store).items():
        tags.setdefault(number, []).append(name)
    table = Table("version", "time (UTC)", "what", "tags")
    versions = editing.log(store)
    for version in versions[: args.limit or None]:
        names = ", ".join(tags.get(version.number, []))
        table.add_row(str(version.number), version.time, version.message, names)
    console = Console()
    console.print(table)
    if args.limit and len(versions) > args.limit:
        console.print(f"and {len(versions) - args.limit} older ones; --limit 0 shows all")
    return 0

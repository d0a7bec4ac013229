"""Make episodes of what recorders that died had written, or throw it away."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.markup import escape

from robopolicy.core.errors import RobopolicyError
from robopolicy.datasets import recovery
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What to do with them.

    Args:
        store: path.
        discard: throw all of them away instead.
    """

    store: tyro.conf.Positional[str]
    discard: bool = False


def run(args: Args) -> int:
    console, store = Console(), EpisodeStore.open(args.store)
    adopted, waiting, failed = store.adopt(), recovery.unfinished(store), 0
    for name in adopted:
        console.print(f"episode {name}: {store.entry(name).length} steps, was complete")
    for item in waiting:
        if args.discard:
            recovery.discard(store, item)
            console.print(f"discarded {item.name} ({item.bytes / 1e6:.1f} MB)")
            continue
        try:
            name = recovery.recover(store, item)
        except RobopolicyError as error:
            failed += 1
            console.print(f"[yellow]not recovered:[/] {escape(str(error))}", soft_wrap=True)
        else:
            console.print(f"episode {name}: {store.entry(name).length} steps, success unknown")
    if not waiting and not adopted:
        console.print(f"{args.store} has no unfinished episode", markup=False, soft_wrap=True)
    return int(failed > 0)

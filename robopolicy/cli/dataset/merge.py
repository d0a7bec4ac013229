"""Make one store of several that have the same specs."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import progress
from robopolicy.datasets import copying
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """Which stores.

    Args:
        stores: paths or URLs; episodes are numbered anew in this order.
        output: path or URL of the new store.
    """

    stores: tyro.conf.Positional[tuple[str, ...]]
    output: str


def run(args: Args) -> int:
    console = Console()
    opened = [EpisodeStore.open(store) for store in args.stores]
    with progress("merging", console) as report:
        merged = copying.merge([(store, store.names) for store in opened], args.output, report)
    console.print(
        f"{args.output}: {len(merged)} episodes of {len(opened)} stores", markup=False, soft_wrap=True
    )
    return 0

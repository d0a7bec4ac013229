"""Open episodes in Rerun, or write them to a .rrd file without a screen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import chosen
from robopolicy.core.errors import RunExistsError
from robopolicy.datasets.show.rerun import log_store
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What to view.

    Args:
        store: path or URL.
        episodes: for example 3 or 10-20; the first ten unless given.
        output: a .rrd file instead of the viewer.
        version: a number or a tag; the newest unless given.
    """

    store: tyro.conf.Positional[str]
    episodes: tuple[str, ...] = ()
    output: Path | None = None
    version: str | None = None


def run(args: Args) -> int:
    console, store = Console(), EpisodeStore.open(args.store, args.version)
    if args.output is not None and args.output.exists():
        raise RunExistsError(f"{args.output} already exists; choose another --output")
    names = chosen(store, args.episodes) if args.episodes else store.names[:10]
    for line in log_store(store, names, args.output):
        console.print(f"not shown: {line}", markup=False, soft_wrap=True)
    console.print(
        f"{len(names)} of {len(store)} episodes {'in the viewer' if args.output is None else args.output}",
        markup=False,
        soft_wrap=True,
    )
    return 0

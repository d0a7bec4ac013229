"""Copy a store, or some of its episodes, to a new place: a path or a URL."""

from __future__ import annotations

from dataclasses import dataclass

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import chosen, progress
from robopolicy.datasets import copying
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """From where to where.

    Args:
        store: path or URL.
        output: path or URL of the new store; it holds one version, and only what that counts.
        version: a number or a tag; the newest unless given.
        episodes: for example 3 or 10-20; all unless given.
    """

    store: tyro.conf.Positional[str]
    output: tyro.conf.Positional[str]
    version: str | None = None
    episodes: tuple[str, ...] = ()


def run(args: Args) -> int:
    console, store = Console(), EpisodeStore.open(args.store, args.version)
    with progress("copying", console) as report:
        copied = copying.merge([(store, chosen(store, args.episodes))], args.output, report)
    console.print(f"{args.output}: {len(copied)} episodes", markup=False, soft_wrap=True)
    return 0

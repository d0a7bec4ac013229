"""Change the instruction or the verdict of episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro
from rich.console import Console

from robopolicy.cli.dataset._common import changed
from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What to change.

    Args:
        store: path.
        episodes: for example 3 or 10-20.
        instruction: what was asked, in words.
        success: whether they succeeded.
    """

    store: tyro.conf.Positional[str]
    episodes: tyro.conf.Positional[tuple[str, ...]]
    instruction: str | None = None
    success: Literal["yes", "no", "unknown"] | None = None


def run(args: Args) -> int:
    store = EpisodeStore.open(args.store)
    labels = editing.Relabel(args.instruction, args.success)
    editing.relabel(store, editing.resolve(store, args.episodes), labels)
    return changed(store, Console())

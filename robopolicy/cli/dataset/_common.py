"""What the sub-commands share: naming episodes, progress, confirming a new version."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


def chosen(store: EpisodeStore, episodes: tuple[str, ...]) -> list[str]:
    """Names of the episodes that the user wrote; all when none."""
    return editing.resolve(store, episodes) if episodes else store.names


@contextlib.contextmanager
def progress(what: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, of)."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def changed(store: EpisodeStore, console: Console) -> int:
    """Say which version the change made and how to take it back."""
    console.print(
        f"{store.where} is at version {store.version}, {len(store)} episodes", markup=False, soft_wrap=True
    )
    console.print(
        f"to undo: robopolicy dataset restore {store.where} {store.version - 1}", markup=False, soft_wrap=True
    )
    return 0

"""Hold every byte against its checksums, and look for what spoils demonstrations."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from robopolicy.cli.dataset._common import chosen, progress
from robopolicy.datasets import integrity, quality
from robopolicy.datasets.storage import is_url
from robopolicy.datasets.store import EpisodeStore

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@dataclass(frozen=True)
class Args:
    """What to check.

    Args:
        store: path or URL.
        episodes: for example 3 or 10-20; all unless given.
        images: look at camera pictures too (black, frozen, repeated); slower.
        json: write everything found to this file.
    """

    store: tyro.conf.Positional[str]
    episodes: tuple[str, ...] = ()
    images: bool = False
    json: Path | None = None


def run(args: Args) -> int:
    """Exit status 1 when something is damaged or wrong."""
    console = Console()
    store = EpisodeStore.open(args.store)
    names = chosen(store, args.episodes)
    with progress("checksums", console) as report:
        damages = integrity.verify(store, names if args.episodes else None, report)
    damaged = {damage.episode for damage in damages}
    for damage in damages:
        place = " ".join(part for part in (damage.episode, damage.key, damage.chunk) if part)
        console.print(f"[bold red]damaged[/] {escape(place)}: {escape(damage.message)}", soft_wrap=True)
    sound = [name for name in names if name not in damaged]
    with progress("contents", console) as report:
        findings = quality.check_store(store, sound, report, images=args.images)
    for finding in quality.fold(findings):
        place = " ".join(part for part in (finding.episode, finding.key) if part)
        label = f"[{COLOURS[finding.severity]}]{finding.severity}[/] {finding.check}"
        console.print(f"{label} {escape(place)}: {escape(finding.message)}", soft_wrap=True)
    if args.json is not None:
        tree = {
            "damages": [dataclasses.asdict(damage) for damage in damages],
            "findings": [finding.tree for finding in findings],
        }
        args.json.write_text(json.dumps(tree, indent=2) + "\n")
    if not is_url(args.store):
        _unfinished(store, console)
    console.print(
        f"{len(names)} episodes checked: {len(damaged)} damaged, {len(findings)} findings in the others"
    )
    return int(bool(damages) or any(finding.severity == "error" for finding in findings))


def _unfinished(store: EpisodeStore, console: Console) -> None:
    from robopolicy.datasets.recovery import unfinished

    waiting = unfinished(store)
    if waiting:
        console.print(
            f"[yellow]{len(waiting)} unfinished episodes[/] of recorders that died: "
            f"robopolicy dataset recover {escape(store.where)}",
            soft_wrap=True,
        )

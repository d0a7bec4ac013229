"""Write a store in another stack's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from robopolicy.datasets import exporters
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What, where to, and how.

    Args:
        store: path or URL.
        output: the new file or folder.
        format: a file name in robopolicy/datasets/exporters.
        version: a number or a tag; the newest unless given.
    """

    store: tyro.conf.Positional[str]
    output: Path
    format: str
    version: str | None = None


def run(args: Args) -> int:
    console = Console()
    exporter = exporters.load(args.format)
    report = exporter.export_dataset(
        EpisodeStore.open(args.store, args.version), args.output, console=console
    )
    for key, value in report.items():
        for line in value if isinstance(value, (list, tuple)) else [value]:
            console.print(f"{key}: {escape(str(line))}", soft_wrap=True)
    return 0

"""Mean, spread and quantiles of every signal, lengths, measured rates and labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from robopolicy.datasets.stats import describe
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What to describe.

    Args:
        store: path or URL.
        version: a number or a tag; the newest unless given.
        json: write all of it to this file.
    """

    store: tyro.conf.Positional[str]
    version: str | None = None
    json: Path | None = None


def run(args: Args) -> int:
    console = Console()
    tree = describe(EpisodeStore.open(args.store, args.version)).tree
    table = Table("signal", "element", "mean", "std", "min", "1 %", "99 %", "max", "unit")
    for name, stats in tree["signals"].items():
        columns = [np.ravel(stats[key]) for key in ("mean", "std", "min", "q01", "q99", "max")]
        width = len(stats["names"]) or len(stats["units"])
        for i, row in enumerate(zip(*columns)):
            element = stats["names"][i % width] if stats["names"] else str(i)
            unit = stats["units"][i % width] if stats["units"] else ""
            table.add_row(name if i == 0 else "", element, *(f"{value:.4g}" for value in row), unit)
    console.print(table)
    for key, value in tree.items():
        if key != "signals":
            console.print(f"{key}: {value}", markup=False, soft_wrap=True)
    if args.json is not None:
        args.json.write_text(json.dumps(tree, indent=2) + "\n")
    return 0

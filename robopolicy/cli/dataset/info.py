"""Episodes, lengths, signals and units of a store; --html writes a page with plots and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from robopolicy.cli.dataset._common import progress
from robopolicy.datasets import editing
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Args:
    """What to show.

    Args:
        store: path or URL.
        version: a number or a tag; the newest unless given.
        html: write a page with plots, pictures and findings to this file.
    """

    store: tyro.conf.Positional[str]
    version: str | None = None
    html: Path | None = None


def run(args: Args) -> int:
    console = Console()
    store = EpisodeStore.open(args.store, args.version)
    if args.html is not None:
        return _page(store, args.html, console)
    lengths = [entry.length for entry in store.entries.values()]
    judged = [entry.success for entry in store.entries.values()]
    steps = np.array(lengths) if lengths else np.zeros(1, dtype=int)
    console.print(
        f"{args.store}: {len(lengths)} episodes, {sum(lengths)} steps at {store.specs.policy_rate} Hz, "
        f"lengths {steps.min()}..{steps.max()}; {judged.count(True)} succeeded, "
        f"{judged.count(False)} failed, {judged.count(None)} not judged",
        markup=False,
        soft_wrap=True,
    )
    names = [name for name, number in editing.tags(store).items() if number == store.version]
    console.print(
        f"version {store.version}{''.join(f' [{n}]' for n in names)}, data {store.digest[:16]}", markup=False
    )
    table = Table("signal", "shape", "dtype", "units", "stored as")
    for name, spec in store.specs.observation.items():
        codec = store.root.codecs.get(name, {}).get("name", "blosc zstd")
        table.add_row(name, str(spec.shape), spec.dtype, " ".join(spec.units), codec)
    for part in store.specs.action.parts:
        shape, units = str((len(part.names),)), " ".join(part.units)
        table.add_row(f"action: {part.space}", shape, "float32", units, "blosc zstd")
    console.print(table)
    return 0


def _page(store: EpisodeStore, output: Path, console: Console) -> int:
    from robopolicy.datasets import quality
    from robopolicy.datasets.show.page import write_page

    with progress("reading", console) as report:
        findings = quality.fold(quality.check_store(store, on_progress=report))
    write_page(store, output, findings=findings)
    console.print(f"wrote {output}", markup=False, soft_wrap=True)
    return 0

"""Import foreign demonstrations, or show what a store holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from robopolicy.datasets import importers
from robopolicy.datasets.importers.mapping import load_mapping
from robopolicy.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Import:
    """Copy a foreign dataset into a new store.

    Args:
        source: file or folder.
        output: the new store.
        format: a file name in robopolicy/datasets/importers.
        mapping: a shipped mapping's name, or a YAML file (see data/README.md).
    """

    source: Path
    output: Path
    mapping: str
    format: str = "replay_buffer"


@dataclass(frozen=True)
class Info:
    """Episodes, lengths, signals and units of a store.

    Args:
        store: path.
    """

    store: tyro.conf.Positional[Path]


Args = Annotated[
    Annotated[Import, tyro.conf.subcommand("import")] | Annotated[Info, tyro.conf.subcommand("info")],
    tyro.conf.OmitSubcommandPrefixes,
]


def run(args: Import | Info) -> int:
    console = Console()
    if isinstance(args, Info):
        return _info(args, console)
    mapping = load_mapping(args.mapping)
    report = importers.load(args.format).import_dataset(args.source, args.output, mapping)
    for key, value in report.items():
        console.print(f"{key}: {value}")
    return 0


def _info(args: Info, console: Console) -> int:
    store = EpisodeStore.open(args.store)
    facts = [store.facts(name) for name in store.names]
    lengths = [fact["length"] for fact in facts]
    judged = [fact["success"] for fact in facts]
    steps = np.array(lengths) if lengths else np.zeros(1, dtype=int)
    console.print(
        f"{args.store}: {len(lengths)} episodes, {sum(lengths)} steps at {store.specs.policy_rate} Hz, "
        f"lengths {steps.min()}..{steps.max()}; {judged.count(True)} succeeded, "
        f"{judged.count(False)} failed, {judged.count(None)} not judged"
    )
    table = Table("signal", "shape", "dtype", "units")
    for name, spec in store.specs.observation.items():
        table.add_row(name, str(spec.shape), spec.dtype, " ".join(spec.units))
    for part in store.specs.action.parts:
        table.add_row(f"action: {part.space}", str((len(part.names),)), "float32", " ".join(part.units))
    console.print(table)
    return 0

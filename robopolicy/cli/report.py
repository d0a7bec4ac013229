"""Draw the page of one or several evaluations anew from their eval.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.eval_films import MEGABYTES
from robopolicy.evaluation.eval_report import load_entries, write_evaluation_report
from robopolicy.evaluation.stored import find_evaluations


@dataclass(frozen=True)
class Args:
    """Which evaluations.

    Args:
        evaluations: folders with ``eval.json`` (or with one such folder per policy), the baseline first.
        output: the page; ``report.html`` in the first folder by default.
        labels: names for the policies, one for each ``eval.json``.
        film_megabytes: films to take into the page [MB].
    """

    evaluations: Annotated[tuple[Path, ...], tyro.conf.Positional]
    output: Path | None = None
    labels: tuple[str, ...] = ()
    film_megabytes: float = MEGABYTES


def run(args: Args) -> int:
    if not args.evaluations:
        raise ConfigError("name at least one folder with an eval.json")
    files = [file for folder in args.evaluations for file in find_evaluations(folder)]
    first = args.evaluations[0]
    output = args.output or (first if first.is_dir() else first.parent) / "report.html"
    entries = load_entries(files, args.labels)
    write_evaluation_report(output, entries, film_megabytes=args.film_megabytes)
    Console().print(f"open {output}", soft_wrap=True)
    return 0

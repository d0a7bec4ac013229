"""Draw the page of one or several evaluations, or of a real-time run, anew from their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.eval_films import MEGABYTES
from robopolicy.evaluation.eval_report import load_entries, write_evaluation_report
from robopolicy.evaluation.run_files import is_run
from robopolicy.evaluation.run_report import write_run_report
from robopolicy.evaluation.stored import find_evaluations


@dataclass(frozen=True)
class Args:
    """Which evaluations.

    Args:
        evaluations: folders with ``eval.json`` (or with one such folder per policy), the baseline first; or
            one folder of ``robopolicy run``.
        output: the page; ``report.html`` in the first folder by default.
        labels: names for the policies, one for each ``eval.json``.
        film_megabytes: films to take into the page [MB].
        store: demonstrations to compare a real-time run's smoothness with.
    """

    evaluations: Annotated[tuple[Path, ...], tyro.conf.Positional]
    output: Path | None = None
    labels: tuple[str, ...] = ()
    film_megabytes: float = MEGABYTES
    store: Path | None = None


def run(args: Args) -> int:
    if not args.evaluations:
        raise ConfigError("name at least one folder with an eval.json or a realtime.json")
    runs = [folder for folder in args.evaluations if is_run(folder)]
    if runs:
        if len(args.evaluations) > 1:
            raise ConfigError(f"a real-time run has a page of its own: name {runs[0]} alone")
        output = write_run_report(runs[0], store=args.store, output=args.output)
        Console().print(f"open {output}", soft_wrap=True)
        return 0
    files = [file for folder in args.evaluations for file in find_evaluations(folder)]
    first = args.evaluations[0]
    output = args.output or (first if first.is_dir() else first.parent) / "report.html"
    entries = load_entries(files, args.labels)
    write_evaluation_report(output, entries, film_megabytes=args.film_megabytes)
    Console().print(f"open {output}", soft_wrap=True)
    return 0

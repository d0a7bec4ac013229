"""Success against the number of candidates, for critics, chance and an oracle: the grid of value guidance.

python benchmarks/reranking.py [--json FILE] [--quick] [--output FOLDER] [--tasks lift place pusht] [--clean]

A small diffusion policy is trained on demonstrations of mixed quality, all of them; critics on the same. At
every call K candidates are drawn and one is chosen: by a critic (Cal-QL, IQL, Monte-Carlo), by chance, or by
playing each in the simulator (an upper bound). Everything is compared with K = 1 on the same seeds and noise,
and with the same policy trained on the successful episodes alone. With --clean the demonstrations are the
scripted expert's. Every store, training and cell is kept in the output folder; a second run goes on where the
first one stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from selection.cells import Cell, cells_of, run_cell
from selection.gains import METHOD
from selection.pool import Pool
from selection.recipes import (
    CLEAN,
    COUNTS,
    DEFAULT_TASKS,
    FILTERED,
    MIXED,
    MOST_PLAYED,
    OBJECTIVES,
    PLAIN,
    SELECTORS,
    Task,
)
from selection.report import picture, print_rows, read_cells, rows_of
from selection.stages import Setting, demonstrations, train_critic, train_policy

from robopolicy.core.provenance import write_json

PUSHT_ARCHIVE = Path("../shared/data/pusht_human_206/pusht_cchi_v7_replay.zarr.zip")


def main() -> None:
    given = arguments().parse_args()
    console = Console(width=150)
    setting, tasks, seeds, counts = plan(given)
    cells = cells_of(tasks, seeds, given.selectors, counts, [k for k in counts if 1 < k <= MOST_PLAYED])
    trainings = [(setting, task, seed) for seed in seeds for task in tasks]
    objectives = [name for name in given.selectors if name in OBJECTIVES]
    with Pool(given.jobs, given.minutes, console) as pool:
        pool.each(demonstrations, [(setting, task) for task in tasks])
        pool.each(train_policy, [(*one, which) for one in trainings for which in (PLAIN, FILTERED)])
        pool.each(train_critic, [(*one, objective) for one in trainings for objective in objectives])
        pool.each(run_cell, [(setting, cell) for cell in cells])
    report(setting, cells, tasks, given.selectors, given.json, console)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="three steps and two episodes: whether it runs")
    parser.add_argument("--output", type=Path, help="folder of all that is made; runs/reranking by default")
    parser.add_argument("--clean", action="store_true", help="demonstrations of the scripted expert")
    parser.add_argument("--tasks", nargs="+", help=f"of {[task.name for task in MIXED]}")
    parser.add_argument("--selectors", nargs="+", choices=SELECTORS, default=list(SELECTORS))
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="candidates")
    parser.add_argument("--seeds", type=int, help="trainings of each policy and critic; 3, or 1 with --quick")
    parser.add_argument("--episodes", type=int, help="of each evaluation; 200, or 2 with --quick")
    parser.add_argument("--jobs", type=int, default=2, help="stages at once, one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing after that")
    parser.add_argument("--pusht", type=Path, default=PUSHT_ARCHIVE, help="archive of human demonstrations")
    return parser


def plan(given: argparse.Namespace) -> tuple[Setting, list[Task], range, list[int]]:
    """What to fill in; --quick does one task with 5 candidates."""
    root = given.output or Path("runs") / ("reranking_quick" if given.quick else "reranking")
    setting = Setting(
        root.absolute(), given.episodes or (2 if given.quick else 200), given.quick, given.pusht.absolute()
    )
    asked = given.tasks or (["lift"] if given.quick else DEFAULT_TASKS)
    known = CLEAN if given.clean else MIXED
    tasks = [task for task in known if task.name.removesuffix("_clean") in asked]
    counts = [1, 5] if given.quick else given.counts
    return setting, tasks, range(given.seeds or (1 if given.quick else 3)), counts


def report(
    setting: Setting,
    cells: Sequence[Cell],
    tasks: Sequence[Task],
    selectors: Sequence[str],
    file: Path | None,
    console: Console,
) -> None:
    """Table, picture and JSON of what is filled so far."""
    found = read_cells(setting, cells)
    if missing := len(cells) - len(found):
        console.print(f"{missing} of {len(cells)} cells are not filled yet; run the same command again")
    rows = rows_of(found, tasks, selectors)
    print_rows(rows, console)
    image = setting.root / ("reranking_clean.png" if tasks and tasks[0] in CLEAN else "reranking.png")
    picture(rows, tasks, selectors, image)
    console.print(f"intervals of gains: {METHOD}\nplot: {image}")
    if file:
        write_json(file, {"rows": rows, "gain_interval": METHOD, "missing": missing, "cells": found})


if __name__ == "__main__":
    main()

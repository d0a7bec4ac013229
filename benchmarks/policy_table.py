"""Success of every policy family on several tasks, three trainings each, on the same fresh seeds.

python benchmarks/policy_table.py [--json FILE] [--quick] [--output FOLDER] [--peer-python PYTHON]

Every stage is kept in the output folder; a second run continues where the first one stopped. The Meta-World
tasks need the second environment (``python3 make.py install-peers``); without it they are left out and named.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from grid.cells import Setting, demonstrations, run_cell
from grid.recipes import RECIPES, TASKS, Recipe, Task
from grid.table import as_tree, picture, print_table, read_cells
from rich.console import Console

from robopolicy.core.provenance import write_json

PEER_PYTHON = Path(".venv-peers/bin/python")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="two steps and two episodes: whether it runs")
    parser.add_argument(
        "--output", type=Path, help="folder of stores and cells; runs/policy_table by default"
    )
    parser.add_argument("--policies", nargs="+", default=[recipe.family for recipe in RECIPES])
    parser.add_argument("--tasks", nargs="+", default=[task.name for task in TASKS])
    parser.add_argument("--seeds", type=int, help="trainings of each policy; 3, or 1 with --quick")
    parser.add_argument("--episodes", type=int, help="of each evaluation; 100, or 2 with --quick")
    parser.add_argument("--times", type=float, default=1.0, help="as many steps; needs its own --output")
    parser.add_argument("--jobs", type=int, default=2, help="cells at once, one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell after that")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON)
    given = parser.parse_args()
    console = Console(width=140)
    peer = given.peer_python.absolute() if given.peer_python.is_file() else None
    root = given.output or Path("runs") / ("policy_table_quick" if given.quick else "policy_table")
    setting = Setting(root.absolute(), given.episodes or (2 if given.quick else 100), given.quick, peer)
    tasks = [task for task in TASKS if task.name in given.tasks and (peer or not task.peer)]
    left_out = [task.name for task in TASKS if task.name in given.tasks and task not in tasks]
    if left_out:
        console.print(f"left out, since {given.peer_python} is not there: {left_out}")
    recipes = [
        replace(recipe, steps=round(given.times * recipe.steps))
        for recipe in RECIPES
        if recipe.family in given.policies
    ]
    seeds = range(given.seeds or (1 if given.quick else 3))
    for task in tasks:
        demonstrations(setting, task)
    cells = [(task, recipe, seed) for seed in seeds for task in tasks for recipe in recipes]
    stop = time.monotonic() + 60 * given.minutes
    failed: list[RuntimeError] = []

    def fill(cell: tuple[Task, Recipe, int]) -> None:
        if time.monotonic() < stop:
            try:
                run_cell(setting, *cell)
            except RuntimeError as error:  # the others are of use all the same
                failed.append(error)
                return
            console.print(f"{cell[0].name:20} {cell[1].family:22} seed {cell[2]}", highlight=False)

    with ThreadPoolExecutor(given.jobs) as pool:
        for _ in pool.map(fill, cells):
            pass
    found = read_cells(setting, tasks, recipes, seeds)
    if missing := len(cells) - len(found):
        console.print(f"{missing} of {len(cells)} cells are not filled yet; run the same command again")
    print_table(found, tasks, recipes, console)
    picture(found, tasks, recipes, root / "policy_table.png")
    console.print(f"plot: {root / 'policy_table.png'}")
    if given.json:
        write_json(given.json, as_tree(found, tasks, recipes))
    for error in failed:
        console.print(str(error), markup=False)
    if failed:
        raise SystemExit(f"{len(failed)} cells failed")


if __name__ == "__main__":
    main()

"""Learning one task after the other: what becomes of the old ones, and what a new one costs.

python benchmarks/continual.py --stores 'runs/stores/mw_{task}.zarr' [--json FILE] [--quick] [--loss-only]

A policy learns the tasks of --base together, then those of --add one by one, each from its demonstrations:
  sdp         a new router and two new experts a layer for each task, all else frozen (train --extend)
  finetune    a dense transformer of equal active size, all weights trained on
  lora        the same with low-rank adapters, merged before the next task
  lora_apart  the same with adapters on the base for each task, kept apart; somebody must load the right ones
After every stage each task so far is measured: root mean square error of chunks on held-out episodes, and
success of the exported bundle in simulation, by the interpreter that has it (--peers-python). What is
finished is kept, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from continual_tasks.measuring import measure
from continual_tasks.methods import APART, METHODS, parameters_of, run_folder, train_stage
from continual_tasks.plan import Plan, add_arguments, make_console, plan_of
from continual_tasks.tables import print_stages, print_summary, summary
from rich.console import Console

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser, "runs/continual")
    parser.add_argument("--base", nargs="+", default=["push-v3", "drawer-open-v3", "door-open-v3"])
    parser.add_argument(
        "--add", nargs="+", default=["button-press-v3", "pick-place-v3", "peg-insert-side-v3"]
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    given = parser.parse_args()
    console, plan = make_console(), plan_of(given)
    stages = [tuple(given.base), *((task,) for task in given.add)]
    rows: list[Row] = []
    for seed in given.seeds:
        for method in given.methods:
            for row in learn(plan, seed, method, stages, console):
                rows.append(row)
                if given.json:
                    given.json.write_text(json.dumps({"stages": stages, "rows": rows}, indent=1) + "\n")
    print_stages(rows, console)
    found = summary(rows)
    print_summary(found, console)
    if given.json:
        tree = {"stages": stages, "summary": found, "rows": rows}
        given.json.write_text(json.dumps(tree, indent=1) + "\n")


def learn(
    plan: Plan, seed: int, method: str, stages: list[tuple[str, ...]], console: Console
) -> Iterator[Row]:
    """One row for each task known after each stage.

    Raises:
        RuntimeError: the method promises that old tasks stay as they are, and an action has changed.
    """
    for stage, tasks in enumerate(stages):
        console.rule(f"seed {seed}, {method}, stage {stage}: {', '.join(tasks)}")
        train_stage(plan, seed, method, stage, tasks, console)
        trained = parameters_of(plan, seed, method, stage)
        for first, task in known(stages[: stage + 1]):
            where = first if method == APART else stage
            found = measure(plan, run_folder(plan, seed, method, where), seed, task, console)
            same = True
            if stage > first:
                earlier = measure(plan, run_folder(plan, seed, method, first), seed, task, console)
                same = all(found[key] == earlier[key] for key in ("chunks", "action_hashes") if key in found)
            if not same and method in ("sdp", APART):
                raise RuntimeError(
                    f"{method}: {task} does other actions after stage {stage} than after {first}"
                )
            yield {
                "seed": seed, "method": method, "stage": stage, "task": task, "learnt_in": first,
                "parameters_trained": trained, "same_actions": same, **found,
            }  # fmt: skip


def known(stages: list[tuple[str, ...]]) -> Iterator[tuple[int, str]]:
    """Every task with the stage that it is learnt in."""
    for stage, tasks in enumerate(stages):
        for task in tasks:
            yield stage, task


if __name__ == "__main__":
    main()

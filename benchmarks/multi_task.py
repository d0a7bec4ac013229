"""Several tasks in one policy: experts by noise level (mode), by task (sdp), and none at equal active size.

python benchmarks/multi_task.py --stores 'runs/stores/mw_{task}.zarr' [--json FILE] [--quick] [--loss-only]

Each family learns all tasks at once, told apart by the instruction alone. Measured for each task: root mean
square error of chunks on held-out episodes, and success of the exported bundle in simulation, by the
interpreter that has it (--peers-python). Which experts are used for what is drawn into
OUTPUT/usage_FAMILY_seedN.png. What is finished is kept, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

from continual_tasks.measuring import measure
from continual_tasks.plan import Plan, add_arguments, make_console, plan_of
from continual_tasks.tables import cell
from continual_tasks.usage import draw_usage
from kept.training import train_once
from rich.console import Console
from rich.table import Table

from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.policies import diffusion_transformer, mode
from robopolicy.policies._saved import load_policy
from robopolicy.runtime.language.choose import load_text_encoder

FAMILIES = ("sdp", "mode", "diffusion_transformer")
TASKS = (
    "push-v3",
    "drawer-open-v3",
    "door-open-v3",
    "button-press-v3",
    "pick-place-v3",
    "peg-insert-side-v3",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser, "runs/multi_task")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    given = parser.parse_args()
    console, plan = make_console(), plan_of(given)
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        for family in given.families:
            rows += learn(plan, seed, family, given.tasks, console)
            if given.json:
                given.json.write_text(json.dumps({"tasks": given.tasks, "rows": rows}, indent=1) + "\n")
    table = Table(
        "policy", "parameters", "active", *given.tasks, title="successes / episodes, error of chunks"
    )
    for family in given.families:
        mine = [row for row in rows if row["family"] == family]
        cells = [cell([row for row in mine if row["task"] == task]) for task in given.tasks]
        table.add_row(family, f"{mine[0]['parameters']:,}", f"{mine[0]['active']:,}", *cells)
    console.print(table)


def learn(plan: Plan, seed: int, family: str, tasks: list[str], console: Console) -> list[dict[str, Any]]:
    """One row for each task."""
    console.rule(f"seed {seed}, {family}")
    run = plan.output / f"seed{seed}" / family
    config = plan.training(seed, plan.base_steps)
    stores, options = [plan.store(task) for task in tasks], options_of(plan, family, tasks[0])
    train_once(run, stores, config, console, family, options)
    image = plan.output / f"usage_{family}_seed{seed}.png"
    if draw_usage(run, image):
        console.print(f"which experts are used for what: {image}")
    total, active = sizes(load_policy(run, "cpu").module)
    said = {"seed": seed, "family": family, "parameters": total, "active": active}
    return [{**said, "task": task, **measure(plan, run, seed, task, console)} for task in tasks]


def options_of(plan: Plan, family: str, task: str) -> Any:
    """Of equal active size; mode has fewer other parts, so its experts are made larger."""
    if family != "mode":
        return plan.sparse() if family == "sdp" else plan.dense()
    store = EpisodeStore.open(plan.store(task))
    states = tuple(key for key, spec in store.specs.observation.items() if spec.kind == "state")
    config = plan.training(0, plan.base_steps)
    dim = load_text_encoder(config.instruction).dim
    specs = PolicySpecs(store.specs.select(states), config.horizons, instruction_dim=dim)
    wanted = sizes(diffusion_transformer.build(plan.dense(), specs))[1]
    options = mode.Config(dim=plan.dim, layers=plan.layers, expert_hidden=plan.dim)
    first, second = (
        sizes(mode.build(replace(options, expert_hidden=hidden), specs))[1]
        for hidden in (plan.dim, plan.dim + 1)
    )
    return replace(options, expert_hidden=plan.dim + max(0, round((wanted - first) / (second - first))))


def sizes(module: Any) -> tuple[int, int]:
    """Parameters, and those that one row meets."""
    total = sum(p.numel() for p in module.parameters())
    stacked = sum(p.numel() for p in module.parameters() if p.ndim == 3)
    k = getattr(module.config, "active_experts", 1)
    return total, total - stacked + stacked * k // getattr(module.config, "experts", 1)


if __name__ == "__main__":
    main()

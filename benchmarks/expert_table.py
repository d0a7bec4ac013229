"""How often the experts solve the tasks, and in which time: clean, with recording noise, and noisy.

python benchmarks/expert_table.py [--json FILE] [--quick] [--robots fr3 ur5e] [--tasks lift ...]
    [--episodes N] [--workers N]

"recording_noise" executes the clean expert's actions as ``robopolicy record`` does; "noisy" is the expert of
mixed quality at its default level. Seeds count from 0. Seconds are simulated, of the successes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from robopolicy.evaluation.environments import EXPERTS, load_entry, make_env
from robopolicy.evaluation.statistics import wilson_interval
from robopolicy_sim import tasks
from robopolicy_sim.noisy import Mistakes

NOISE = 0.005  # [rad], as ``robopolicy record`` executes by default
KINDS: dict[str, dict[str, Any]] = {
    "clean": {},
    "recording_noise": {"noise": NOISE},
    "noisy": {"noise": NOISE, "mistakes": Mistakes()},
}
CHUNK = 10  # episodes of one job


class Job(NamedTuple):
    task: str
    robot: str
    kind: str
    seeds: range


class Ending(NamedTuple):
    success: bool
    unstable: bool
    seconds: float


@dataclass(frozen=True)
class Row:
    """One cell group of the table: an expert of a kind on a task with a robot."""

    success: float
    successes: int
    n: int
    low: float
    high: float
    seconds_mean: float | None
    unstable: int


def main() -> None:
    given = arguments()
    console = Console(width=None if os.isatty(1) else 130)
    jobs = list(plan(given.tasks, given.robots, range(given.episodes)))
    endings: dict[tuple[str, str, str], list[Ending]] = defaultdict(list)
    spawn = multiprocessing.get_context("spawn")
    with (
        Progress(console=console) as progress,
        ProcessPoolExecutor(given.workers, mp_context=spawn) as pool,
    ):
        bar = progress.add_task("episodes", total=sum(len(job.seeds) for job in jobs))
        futures = {pool.submit(play, job): job for job in jobs}
        for future in as_completed(futures):
            job = futures[future]
            endings[job[:3]] += future.result()
            progress.advance(bar, len(job.seeds))
    rows = {key: summarise(endings[key]) for key in sorted(endings)}
    console.print(as_table(rows, given.tasks, given.robots))
    if given.json:
        given.json.write_text(json.dumps(as_tree(rows, given.tasks, given.robots), indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="20 episodes each instead of 200")
    parser.add_argument("--robots", nargs="+", default=["fr3", "ur5e"])
    parser.add_argument("--tasks", nargs="+", default=tasks.names(), choices=tasks.names())
    parser.add_argument("--episodes", type=int, help="of each kind")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    given.episodes = given.episodes or (20 if given.quick else 200)
    return given


def plan(task_names: list[str], robots: list[str], seeds: range) -> Iterator[Job]:
    """All episodes, a few to a job."""
    for task in task_names:
        for robot in robots:
            for kind in KINDS:
                for first in range(0, len(seeds), CHUNK):
                    yield Job(task, robot, kind, seeds[first : first + CHUNK])


def play(job: Job) -> list[Ending]:
    """How each of the job's episodes ends."""
    env = make_env(job.task, robot=job.robot)
    expert = load_entry(EXPERTS, "expert", job.task)(**KINDS[job.kind])
    endings = []
    for seed in job.seeds:
        env.reset(seed=seed)
        expert.reset(env, seed)
        done = False
        while not done:
            _, _, terminated, truncated, info = env.step(expert.perturb(expert.act()))
            done = terminated or truncated
        endings.append(Ending(info["is_success"], info["unstable"], info["time"]))
    env.close()
    return endings


def summarise(endings: list[Ending]) -> Row:
    solved = [ending.seconds for ending in endings if ending.success]
    low, high = wilson_interval(len(solved), len(endings))
    return Row(
        success=len(solved) / len(endings),
        successes=len(solved),
        n=len(endings),
        low=low,
        high=high,
        seconds_mean=float(np.mean(solved)) if solved else None,
        unstable=sum(ending.unstable for ending in endings),
    )


def as_table(rows: dict[tuple[str, str, str], Row], task_names: list[str], robots: list[str]) -> Table:
    table = Table("task", "robot", "n", title="success (95 % Wilson interval), mean seconds of the successes")
    for kind in KINDS:
        table.add_column(kind.replace("_", " "))
    for task in task_names:
        for robot in robots:
            cells = [rows[task, robot, kind] for kind in KINDS]
            table.add_row(task, robot, str(cells[0].n), *(_cell(cell) for cell in cells))
    return table


def _cell(row: Row) -> str:
    seconds = "" if row.seconds_mean is None else f", {row.seconds_mean:.1f} s"
    unstable = f", {row.unstable} unstable" if row.unstable else ""
    return f"{row.success:.3f} ({row.low:.2f} to {row.high:.2f}){seconds}{unstable}"


def as_tree(
    rows: dict[tuple[str, str, str], Row], task_names: list[str], robots: list[str]
) -> dict[str, dict[str, Any]]:
    """Per task: ``success`` and ``n`` of the clean expert over all robots, then every row."""
    tree: dict[str, dict[str, Any]] = {}
    for task in task_names:
        clean = [rows[task, robot, "clean"] for robot in robots]
        n = sum(row.n for row in clean)
        by_robot = {r: {kind: asdict(rows[task, r, kind]) for kind in KINDS} for r in robots}
        tree[task] = {"success": sum(row.successes for row in clean) / n, "n": n, "robots": by_robot}
    return tree


if __name__ == "__main__":
    main()

"""One critic, several policies: the same values steer policies of other families, trained on other episodes.

python benchmarks/one_critic.py [--json FILE] [--quick] [--output FOLDER] [--task lift] [--objective iql]

The critic learns from one half of the episodes and a policy of that half, the policies from the other half;
none of them is touched. Each is compared with itself at K = 1 on the same seeds and noise. Everything is kept
in the output folder; a second run goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from selection.cells import play_by_critic, record
from selection.gains import METHOD, gain
from selection.pool import Pool
from selection.recipes import BASE, FAMILIES, MIXED, OBJECTIVES, Task
from selection.stages import Setting, bundle_of, critic_of, demonstrations, part_of

from robopolicy.core.provenance import write_json
from robopolicy.datasets.store import EpisodeStore


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="three steps and two episodes: whether it runs")
    parser.add_argument("--output", type=Path, help="runs/one_critic by default")
    parser.add_argument("--task", choices=[task.name for task in MIXED], default="lift")
    parser.add_argument("--objective", choices=OBJECTIVES, default="iql")
    parser.add_argument("--counts", nargs="+", type=int, help="candidates; 10 and 30, or 3 with --quick")
    parser.add_argument("--seeds", type=int, help="trainings of each; 3, or 1 with --quick")
    parser.add_argument("--episodes", type=int, help="of each evaluation; 200, or 2 with --quick")
    parser.add_argument("--jobs", type=int, default=2, help="stages at once, one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing after that")
    parser.add_argument("--pusht", type=Path, default=Path("pusht_cchi_v7_replay.zarr.zip"))
    given = parser.parse_args()
    console = Console(width=150)
    root = given.output or Path("runs") / ("one_critic_quick" if given.quick else "one_critic")
    episodes = given.episodes or (2 if given.quick else 200)
    setting = Setting(root.absolute(), episodes, given.quick, given.pusht.absolute(), recorded=32)
    (task,) = (task for task in MIXED if task.name == given.task)
    seeds = range(given.seeds or (1 if given.quick else 3))
    counts = [1, *(given.counts or ([3] if given.quick else [10, 30]))]
    cells = [(family, seed, k) for seed in seeds for family in FAMILIES for k in counts]
    with Pool(given.jobs, given.minutes, console) as pool:
        pool.each(halves, [(setting, task)])
        pool.each(train_critic, [(setting, task, seed, given.objective) for seed in seeds])
        pool.each(train_family, [(setting, task, seed, family) for seed in seeds for family in FAMILIES])
        pool.each(fill, [(setting, task, given.objective, *cell) for cell in cells])
    found = [
        json.loads(file.read_text()) for file in (result(setting, task, *c) for c in cells) if file.is_file()
    ]
    if missing := len(cells) - len(found):
        console.print(f"{missing} of {len(cells)} cells are not filled yet; run the same command again")
    rows = rows_of(found, counts)
    show(rows, given.objective, console)
    if given.json:
        tree = {"task": task.name, "objective": given.objective, "rows": rows, "gain_interval": METHOD}
        write_json(given.json, {**tree, "missing": missing, "cells": found})


def halves(setting: Setting, task: Task) -> tuple[Path, Path]:
    """Stores of every second episode: for the critic, and for the policies. Their actions must span about the
    same, or the critic is refused, which takes some episodes."""
    store = demonstrations(setting, task)
    names = EpisodeStore.open(store).names
    return part_of(store, "critic", names[::2]), part_of(store, "policies", names[1::2])


def train_critic(setting: Setting, task: Task, seed: int, objective: str) -> Path:
    """On its half; with a policy of that half where it imagines chunks."""
    store, _ = halves(setting, task)
    folder, policy = setting.folder(task, seed), None
    if objective == "cal_ql":
        words = ("--train.include-failures",)
        policy = bundle_of(setting, folder / "imagined", store, task, seed, BASE, words=words).parent / "run"
    return critic_of(setting, folder / objective, store, task, seed, objective, policy)


def train_family(setting: Setting, task: Task, seed: int, family: str) -> Path:
    """On the other half, failures included."""
    _, store = halves(setting, task)
    folder, words = setting.folder(task, seed) / family, ("--train.include-failures",)
    return bundle_of(setting, folder, store, task, seed, FAMILIES[family], family=family, words=words)


def result(setting: Setting, task: Task, family: str, seed: int, count: int) -> Path:
    return setting.folder(task, seed) / "eval" / f"{family}_k{count}.json"


def fill(setting: Setting, task: Task, objective: str, family: str, seed: int, count: int) -> Path:
    """One policy with so many candidates."""
    file = result(setting, task, family, seed, count)
    if file.is_file():
        return file
    folder = setting.folder(task, seed)
    episodes, counts = play_by_critic(
        folder / family / "bundle", folder / objective / "run", task, count, setting.episodes
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**record(task, seed, family, count, episodes), "counts": counts})
    return file


def rows_of(found: list[dict[str, Any]], counts: list[int]) -> list[dict[str, Any]]:
    """For each family and K: success over all trainings, and the gain over its own K = 1 in points."""
    rows = []
    for family in FAMILIES:
        base = [cell for cell in found if (cell["selector"], cell["k"]) == (family, 1)]
        for count in counts:
            cells = [cell for cell in found if (cell["selector"], cell["k"]) == (family, count)]
            if not cells:
                continue
            won, n = sum(cell["successes"] for cell in cells), sum(cell["n"] for cell in cells)
            row = {"policy": family, "k": count, "success": won / n, "n": n, "trainings": len(cells)}
            if count > 1 and (gained := gain(base, cells, "outcomes")) is not None:
                row["gain_points"] = 100 * gained.value
                row["gain_points_interval"] = [100 * edge for edge in gained.interval]
            rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], objective: str, console: Console) -> None:
    table = Table("policy", "K", "success", "gain over K = 1 (points)", title=f"one critic ({objective})")
    for row in rows:
        gained = ""
        if "gain_points" in row:
            low, high = row["gain_points_interval"]
            gained = f"{row['gain_points']:+.1f} [{low:+.1f}, {high:+.1f}]"
        table.add_row(row["policy"], str(row["k"]), f"{row['success']:.3f} of {row['n']}", gained)
    console.print(table)


if __name__ == "__main__":
    main()

"""One cell of the table: record once, train, export where needed, evaluate; all by ``robopolicy``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from grid.recipes import EPISODES_RECORDED, EPISODES_RECORDED_QUICK, Recipe, Task
from robopolicy.core.provenance import git_revision, write_json

#: Of an exported chunk [normalised]: now and then one lies where denoising parts, and rounding grows there.
TOLERANCE = 5e-4
FIRST_SEED = 1_000_000


@dataclass(frozen=True)
class Setting:
    """Where cells are kept and how they are judged.

    Args:
        root: folder of stores and cells.
        episodes: of each evaluation.
        quick: two training steps and small networks: whether it runs.
        peer_python: of the second environment; None where there is none.
    """

    root: Path
    episodes: int
    quick: bool
    peer_python: Path | None

    def cell(self, task: Task, recipe: Recipe, seed: int) -> Path:
        return self.root / "cells" / task.name / recipe.family / str(seed)


def command(*words: object, python: Path | None = None, log: Path) -> None:
    """Run ``robopolicy WORDS`` on one thread; RuntimeError shows the end of its log."""
    given = [str(python or sys.executable), "-m", "robopolicy.cli.main", *map(str, words)]
    with log.open("a") as output:
        output.write(f"\n$ robopolicy {' '.join(map(str, words))}\n")
        output.flush()
        done = subprocess.run(
            given,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise RuntimeError(f"robopolicy {words[0]} failed, see {log}: {log.read_text()[-800:]}")


def demonstrations(setting: Setting, task: Task) -> Path:
    """The task's store, recorded with the scripted expert unless it is there."""
    store = setting.root / "stores" / task.store
    if store.exists():
        return store
    store.parent.mkdir(parents=True, exist_ok=True)
    partial = store.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    count = EPISODES_RECORDED_QUICK if setting.quick else EPISODES_RECORDED
    words = ("record", "--task", task.env, "--episodes", count, "--output", partial, *task.record)
    log = store.with_suffix(".log")
    command(*words, python=setting.peer_python if task.peer else None, log=log)
    partial.rename(store)
    return store


def run_cell(setting: Setting, task: Task, recipe: Recipe, seed: int) -> Path:
    """Fill one cell and give its ``cell.json``; a cell that was interrupted begins again.

    Raises:
        RuntimeError: a command failed, or the cell was filled by another plan than today's.
    """
    folder = setting.cell(task, recipe, seed)
    result = folder / "cell.json"
    plan = {"training": list(recipe.training(setting.quick)), "episodes": setting.episodes}
    if result.is_file():
        if (found := json.loads(result.read_text())["plan"]) != plan:
            raise RuntimeError(f"{folder} was filled by {found}, not {plan}; choose another --output")
        return result
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log, store, run = folder / "log.txt", demonstrations(setting, task), folder / "run"
    training = ("--policy", recipe.family, "--train.seed", seed, *recipe.training(setting.quick))
    command("train", "--store", store, "--output", run, *training, log=log)
    acting = run
    if task.peer:
        acting = folder / "bundle"
        words = ("--policy", run, "--output", acting, "--store", store, "--tolerance", TOLERANCE)
        command("export", *words, log=log)
    words = ("--policy", acting, "--env", task.env, "--episodes", setting.episodes, "--seed", FIRST_SEED)
    python = setting.peer_python if task.peer else None
    command(
        "eval", *words, "--output", folder / "eval", "--workers", 1, "--no-report", python=python, log=log
    )
    evaluation = json.loads((folder / "eval" / "eval.json").read_text())
    outcomes = {str(episode["seed"]): bool(episode["success"]) for episode in evaluation["episodes"]}
    cell = {"task": task.name, "policy": recipe.family, "seed": seed, "plan": plan, "outcomes": outcomes}
    cell |= {"successes": sum(outcomes.values()), "n": len(outcomes), "git_revision": git_revision()}
    cell["train"] = json.loads((run / "train.json").read_text())
    shutil.rmtree(run / "checkpoints", ignore_errors=True)  # a table of trainings is large enough
    write_json(result, cell)
    return result

"""Stores, trainings and exports of the reranking grid: each kept, and made only where it is missing."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from robopolicy.cli.main import main
from robopolicy.core.provenance import write_json
from robopolicy.datasets import copying
from robopolicy.datasets.store import EpisodeStore
from selection.recipes import BASE, CRITIC, OBJECTIVES, PLAIN, Recipe, Task

QUICK_EPISODES = 8
DONE = "done.json"


@dataclass(frozen=True)
class Setting:
    """Where everything is kept, and how it is judged.

    Args:
        root: folder of stores and cells.
        episodes: of each evaluation.
        quick: three training steps and few episodes: whether it runs.
        pusht: archive of the human demonstrations.
        recorded: episodes of each expert's store with ``quick``.
    """

    root: Path
    episodes: int
    quick: bool
    pusht: Path
    recorded: int = QUICK_EPISODES

    def folder(self, task: Task, seed: int) -> Path:
        return self.root / "cells" / task.name / str(seed)


def command(*words: object, log: Path) -> None:
    """``robopolicy WORDS`` in this process, whose imports are paid for once; what it prints goes to the log.

    Raises:
        RuntimeError: it failed; shows the end of its log.
    """
    given = list(map(str, words))
    with log.open("a") as output, redirect_stdout(output), redirect_stderr(output):
        print(f"\n$ robopolicy {shlex.join(given)}", flush=True)
        status = main(given)
    if status:
        raise RuntimeError(f"robopolicy {words[0]} failed, see {log}: {log.read_text()[-800:]}")


def demonstrations(setting: Setting, task: Task) -> Path:
    """The task's store, recorded unless it is there."""
    store = setting.root / "stores" / f"{task.name}.zarr"
    if store.exists():
        return store
    store.parent.mkdir(parents=True, exist_ok=True)
    partial, log = store.with_suffix(".partial"), store.with_suffix(".log")
    shutil.rmtree(partial, ignore_errors=True)
    if task.corrupted is not None:
        from selection.pusht import mixed_store

        human = store.with_name("pusht_human.zarr")
        if not human.exists():
            words = ("--source", setting.pusht, "--output", human, "--mapping", "pusht")
            command("dataset", "import", *words, log=log)
        mixed_store(human, task, partial, setting.recorded if setting.quick else None)
    else:
        count = setting.recorded if setting.quick else task.episodes
        expert = ("--expert", "noisy", "--noise-level", task.level) if task.level else ()
        words = ("--task", task.env, "--episodes", count, "--output", partial, *expert)
        command("record", *words, log=log)
    partial.rename(store)
    return store


def part_of(store: Path, name: str, episodes: Sequence[str]) -> Path:
    """A store beside this one with some of its episodes."""
    target = store.with_name(f"{store.stem}_{name}.zarr")
    if not target.exists():
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        copying.merge([(EpisodeStore.open(store), episodes)], partial)
        partial.rename(target)
    return target


def train_policy(setting: Setting, task: Task, seed: int, which: str) -> Path:
    """The policy on all episodes ("plain") or on the successful ones, as a bundle."""
    words = ("--train.include-failures",) if which == PLAIN else ()
    folder, store = setting.folder(task, seed) / which, demonstrations(setting, task)
    return bundle_of(setting, folder, store, task, seed, BASE, words=words)


def bundle_of(
    setting: Setting,
    folder: Path,
    store: Path,
    task: Task,
    seed: int,
    recipe: Recipe,
    *,
    family: str = "diffusion_unet",
    words: Sequence[str] = (),
) -> Path:
    """Train and export, unless that is done."""
    bundle, run = folder / "bundle", folder / "run"
    given = ("--policy", family, "--train.seed", seed, *recipe.training(task, setting.quick), *words)
    if _is_done(folder, given):
        return bundle
    log = folder / "log.txt"
    command("train", "--store", store, "--output", run, *given, log=log)
    form = ("--form", "auto" if family == "gmm" else "step")  # which draws at once
    command("export", "--policy", run, "--output", bundle, *form, "--candidates", 1, 2, log=log)
    _finish(folder, given)
    return bundle


def train_critic(setting: Setting, task: Task, seed: int, objective: str) -> Path:
    """The run of a critic on all episodes; it imagines the plain policy's chunks where its objective does."""
    folder, store = setting.folder(task, seed), demonstrations(setting, task)
    return critic_of(setting, folder / objective, store, task, seed, objective, folder / PLAIN / "run")


def critic_of(
    setting: Setting,
    folder: Path,
    store: Path,
    task: Task,
    seed: int,
    objective: str,
    policy: Path | None,
) -> Path:
    """Train, unless that is done; ``policy`` imagines chunks where the objective wants some."""
    assert objective in OBJECTIVES
    given = ("--objective", objective, "--train.seed", seed, *CRITIC.training(task, setting.quick))
    given += ("--reward", task.reward)
    run = folder / "run"
    if not _is_done(folder, given):
        words = ("--store", store, "--output", run, *(("--policy", policy) if policy else ()))
        command("train-value", *words, *given, log=folder / "log.txt")
        _finish(folder, given)
    return run


def _is_done(folder: Path, plan: Sequence[object]) -> bool:
    """RuntimeError where it was done by another plan; a stage that was interrupted begins again."""
    words = [str(word) for word in plan]
    if (folder / DONE).is_file():
        if (found := json.loads((folder / DONE).read_text())["plan"]) != words:
            raise RuntimeError(f"{folder} was filled by {found}, not {words}; choose another --output")
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return False


def _finish(folder: Path, plan: Sequence[object]) -> None:
    shutil.rmtree(folder / "run" / "checkpoints", ignore_errors=True)
    write_json(folder / DONE, {"plan": [str(word) for word in plan]})

"""One evaluation of the grid: a selector with so many candidates, on the same seeds as all others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.core.policy import Policy
from robopolicy.core.provenance import git_revision, write_json
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.reranked import EvaluatedSelection
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.rollout import evaluate
from robopolicy.runtime import BundlePolicy, load_bundle
from robopolicy.runtime.reranking.config import RerankConfig
from selection.oracle import evaluate_oracle
from selection.random_pick import LazyRandomPick
from selection.recipes import (
    COUNTS,
    FILTERED,
    FIRST_SEED,
    OBJECTIVES,
    PLAIN,
    Task,
)
from selection.stages import Setting

Found = tuple[list[EpisodeResult], dict[str, int]]


@dataclass(frozen=True)
class Cell:
    """Of task and training seed: who chooses among how many candidates. One candidate is nobody's choice, so
    that ``PLAIN`` stands for K = 1 of every selector."""

    task: Task
    seed: int
    selector: str
    count: int

    @property
    def base(self) -> str:
        """Whose candidates."""
        return FILTERED if self.selector == FILTERED else PLAIN

    def file(self, setting: Setting) -> Path:
        folder = setting.folder(self.task, self.seed) / "eval"
        return folder / f"{self.selector}_k{self.count}.json"


def cells_of(
    tasks: Sequence[Task],
    seeds: Iterable[int],
    selectors: Sequence[str],
    counts: Sequence[int] = COUNTS,
    oracle: Sequence[int] = (),
) -> list[Cell]:
    """The grid, cheap cells and first seeds before the others."""
    found = []
    for seed in seeds:
        for task in tasks:
            found += [Cell(task, seed, PLAIN, 1), Cell(task, seed, FILTERED, 1)]
            pairs = [(s, k) for s in selectors for k in (oracle if s == "oracle" else counts) if k > 1]
            pairs.sort(key=lambda pair: (pair[0] == "oracle", pair[1]))
            found += [Cell(task, seed, selector, count) for selector, count in pairs]
    return found


def run_cell(setting: Setting, cell: Cell) -> Path:
    """Fill one cell from what was trained, unless it is filled.

    Raises:
        RuntimeError: it was filled with other trainings or fewer episodes.
    """
    file = cell.file(setting)
    bundle = load_bundle(setting.folder(cell.task, cell.seed) / cell.base / "bundle")
    plan = {"episodes": setting.episodes, "policy": bundle.digest}
    choose, plan["critic"] = _chooser(setting, cell)
    if file.is_file():
        if (found := json.loads(file.read_text())["plan"]) != plan:
            raise RuntimeError(f"{file} was filled by {found}, not {plan}; choose another --output")
        return file
    seeds = range(FIRST_SEED, FIRST_SEED + setting.episodes)
    began = time.perf_counter()
    episodes, counts = choose(BundlePolicy(bundle, provider="cpu"), EnvRecipe(cell.task.env), seeds)
    seconds = time.perf_counter() - began
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        file,
        {
            **record(cell.task, cell.seed, cell.selector, cell.count, episodes),
            "counts": counts,
            "seconds": seconds,
            "plan": plan,
        },
    )
    return file


def record(
    task: Task, seed: int, selector: str, count: int, episodes: Sequence[EpisodeResult]
) -> dict[str, Any]:
    """What a cell holds: by seed of the environment, success and the largest reward."""
    return {
        "task": task.name,
        "seed": seed,
        "selector": selector,
        "k": count,
        "n": len(episodes),
        "successes": sum(e.success for e in episodes),
        "outcomes": {str(e.seed): bool(e.success) for e in episodes},
        "max_reward": {str(e.seed): e.max_reward for e in episodes},
        "git_revision": git_revision(),
    }


def _chooser(setting: Setting, cell: Cell) -> tuple[Callable[[Policy, EnvRecipe, range], Found], str]:
    """How to play, and the digest of the critic that is asked."""
    if cell.selector == "oracle":
        return lambda policy, recipe, seeds: evaluate_oracle(
            policy, recipe.bind(policy.policy_specs), seeds, cell.count
        ), ""
    if cell.selector == "random_pick":

        def by_chance(policy: Policy, recipe: EnvRecipe, seeds: range) -> Found:
            chance = LazyRandomPick(policy, cell.count)
            return evaluate(chance, recipe, seeds), chance.counts()

        return by_chance, ""
    if cell.selector in OBJECTIVES:
        return by_critic(setting.folder(cell.task, cell.seed) / cell.selector / "run", cell.count)
    return lambda policy, recipe, seeds: (evaluate(policy, recipe, seeds), {}), ""


def by_critic(run: Path, count: int) -> tuple[Callable[[Policy, EnvRecipe, range], Found], str]:
    """The best of ``count`` candidates by the critic of this run."""
    import torch

    from robopolicy.steering._saved import load_critic

    torch.set_num_threads(1)
    critic = load_critic(run, device="cpu")

    def play(policy: Policy, recipe: EnvRecipe, seeds: range) -> Found:
        chooser = EvaluatedSelection(policy, RerankConfig(count), critic=critic)
        episodes, told = evaluate(chooser, recipe, seeds), chooser.record()
        names = ("decisions", "other_than_first", "nan_candidates", "nan_rows")
        return episodes, {name: getattr(told, name) for name in names}

    return play, critic.digest


def play_by_critic(bundle: Path, run: Path, task: Task, count: int, episodes: int) -> Found:
    """Any bundle steered by any critic; one candidate is not judged."""
    play, _ = by_critic(run, count)
    policy = BundlePolicy(load_bundle(bundle), provider="cpu")
    return play(policy, EnvRecipe(task.env), range(FIRST_SEED, FIRST_SEED + episodes))

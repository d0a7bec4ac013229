"""The three places a policy is evaluated in, and how."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from twin.policies import StudyPolicy

from robopolicy.core.policy import Policy
from robopolicy.core.provenance import write_json
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.rollout import evaluate
from robopolicy.policies._saved import load_policy
from robopolicy_sim.twins.twin import TwinRecipe

#: The twin plays the real robot; "before" is the simulation as it is, "after" has what was identified.
WORLDS = ("real", "before", "after")
FIRST_SEED = 2_000_000  # far from the demonstrations' seeds


def outcomes(
    policy: StudyPolicy, world: str, run: Path, identified: Path, cache: Path, episodes: int
) -> dict[int, bool]:
    """Success by seed, from the cache or by running; the same seeds for every policy and world."""
    file = cache / f"{policy.name}_{world}.json"
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    if file.is_file():
        found = {int(seed): bool(won) for seed, won in json.loads(file.read_text()).items()}
        if set(seeds) <= set(found):
            return {seed: found[seed] for seed in seeds}
    results = _successes(_load(policy, run), policy.task, world, identified, seeds)
    cache.mkdir(parents=True, exist_ok=True)
    write_json(file, {str(seed): won for seed, won in results.items()})
    return results


def _load(policy: StudyPolicy, run: Path) -> Policy:
    torch.set_num_threads(1)
    loaded = load_policy(run)
    specs = loaded.policy_specs
    horizons = dataclasses.replace(specs.horizons, action=policy.execute)
    loaded.module.policy_specs = dataclasses.replace(specs, horizons=horizons)
    return loaded


def _successes(
    policy: Policy, task: str, world: str, identified: Path, seeds: Sequence[int]
) -> dict[int, bool]:
    if world == "real":
        make = TwinRecipe(task).bind(policy.policy_specs)
    else:
        options = {} if world == "before" else {"randomisation": str(identified)}
        make = EnvRecipe(task, options).bind(policy.policy_specs)
    results = evaluate(policy, make, seeds, console=Console(quiet=True))
    return {result.seed: result.success for result in results}

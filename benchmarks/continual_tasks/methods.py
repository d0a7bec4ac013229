"""Ways to learn one task after the other, each a chain of trainings that can be interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kept.training import train_once
from rich.console import Console

from continual_tasks.plan import Plan
from robopolicy import policies
from robopolicy.policies._saved import load_policy
from robopolicy.training.extend import ExtendConfig
from robopolicy.training.finetune import FinetuneConfig
from robopolicy.training.lora import add_adapters
from robopolicy.training.optimiser import trainable_parameters

#: "lora" merges each task's adapters before the next; "lora_apart" keeps a set for each task on the first
#: policy, and has to be told which to load.
METHODS = ("sdp", "finetune", "lora", "lora_apart")
APART = "lora_apart"


def run_folder(plan: Plan, seed: int, method: str, stage: int) -> Path:
    """Methods without experts share the policy that they begin with."""
    name = method if stage or method == "sdp" else "dense"
    return plan.output / f"seed{seed}" / name / f"stage{stage}"


def train_stage(
    plan: Plan, seed: int, method: str, stage: int, tasks: Sequence[str], console: Console
) -> Path:
    """Train, go on with a training, or find it finished.

    Args:
        tasks: of this stage alone.
    """
    run = run_folder(plan, seed, method, stage)
    stores = [plan.store(task) for task in tasks]
    if stage == 0:
        family, options = (
            ("sdp", plan.sparse()) if method == "sdp" else ("diffusion_transformer", plan.dense())
        )
        return train_once(run, stores, plan.training(seed, plan.base_steps), console, family, options)
    before = run_folder(plan, seed, method, 0 if method == APART else stage - 1)
    config = plan.training(seed, plan.steps)
    if method == "sdp":
        config = replace(config, extend=ExtendConfig(str(before)))
    else:
        parameters = "all" if method == "finetune" else "lora"
        config = replace(config, finetune=FinetuneConfig(str(before), parameters=parameters))
    return train_once(run, stores, config, console)


def parameters_of(plan: Plan, seed: int, method: str, stage: int) -> int:
    """How many numbers the stage trained: those added, or for "finetune" all of them."""
    policy = load_policy(run_folder(plan, seed, method, stage), "cpu")
    total = trainable_parameters(policy.module)[1]
    if method == "sdp" and stage:
        return total - parameters_of_whole(run_folder(plan, seed, method, stage - 1))
    if method.startswith("lora") and stage:
        twin = policies.family("diffusion_transformer").build(policy.module.config, policy.policy_specs)
        add_adapters(twin, FinetuneConfig().lora)
        return trainable_parameters(twin)[0]
    return total


def parameters_of_whole(run: Path) -> int:
    return trainable_parameters(load_policy(run, "cpu").module)[1]

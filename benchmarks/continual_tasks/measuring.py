"""How well a run does a task: errors of its chunks on held-out episodes, and success of its bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from continual_tasks.plan import SEED, Plan
from robopolicy.core.policy import Context, keyed_rng
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Batch, Windows
from robopolicy.export.bundle import export_bundle
from robopolicy.export.options import ExportOptions
from robopolicy.policies._saved import load_policy
from robopolicy.training.data import open_stores

WINDOWS = 256  # that the errors are measured on
ROUNDING = 1e-4  # of normalised actions


def measure(plan: Plan, run: Path, seed: int, task: str, console: Console) -> dict[str, Any]:
    """{"error", "clipped", "chunks", "successes", "episodes", "action_hashes"}, the first three without
    simulation. "clipped" is the share of the demonstrated numbers that lie outside the policy's range, which
    is that of its first tasks: no training makes it do those.

    Kept in the run, and read from there when it is asked for again, with the same episodes.
    """
    kept = run / "measured" / f"{task}.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        if not plan.env or found.get("episodes") == plan.episodes:
            return found
    else:
        found = held_out_error(plan, run, seed, task)
    if plan.env:
        found.update(success(plan, run, task, console))
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(found, indent=1) + "\n")
    return found


def held_out_error(plan: Plan, run: Path, seed: int, task: str) -> dict[str, Any]:
    """Root mean square of predicted minus demonstrated actions inside episodes [the action's unit]."""
    windows, batch = held_out_windows(plan, seed, task)
    chunks = sample(run, batch, windows.instructions)
    difference = (chunks - batch.action)[batch.mask]
    normalised = load_policy(run, "cpu").normalisers.action.forward(batch.action[batch.mask])
    return {
        "clipped": float((np.abs(normalised) > 1 + ROUNDING).mean()),
        "error": float(np.sqrt(np.square(difference).mean())),
        "chunks": hashlib.sha256(chunks.tobytes()).hexdigest(),
    }


def sample(run: Path, batch: Batch, instructions: list[str]) -> NDArray[np.float32]:
    """(windows, prediction_horizon, action_dim), one candidate each, from noise that is always the same."""
    policy = load_policy(run, "cpu")
    shape = (len(batch.action), 1, *policy.policy_specs.noise_shape)
    noise = keyed_rng(0).standard_normal(shape, dtype=np.float32)
    told = tuple(instructions[row] for row in batch.instruction)
    return policy.sample(batch.observation, noise, Context(told))[:, 0]


def held_out_windows(plan: Plan, seed: int, task: str) -> tuple[Windows, Batch]:
    """Of the episodes that no training with this seed has seen."""
    config = plan.training(seed, plan.steps)
    (store, use), *_ = open_stores([plan.store(task)], [None], config)
    keys = tuple(k for k, spec in store.specs.observation.items() if spec.kind == "state")
    windows = Windows(store, config.horizons, keys, list(use.held_out))
    rows = np.linspace(0, len(windows) - 1, min(WINDOWS, len(windows))).astype(np.int64)
    return windows, windows.batch(rows)


def success(plan: Plan, run: Path, task: str, console: Console) -> dict[str, Any]:
    """Of the exported policy, in the interpreter that has the environment."""
    bundle, output = run / "bundle", run / "measured" / task
    if not bundle.is_dir():
        export_bundle(run, bundle, options=ExportOptions(form="step"), console=console)
    shutil.rmtree(output, ignore_errors=True)  # an evaluation that was interrupted
    store = EpisodeStore.open(plan.store(task))
    instruction = str(store.facts(store.names[0])["instruction"])
    command = [str(plan.python), "-m", "robopolicy.cli.main", "eval", "--no-report"]
    command += ["--policy", str(bundle), "--output", str(output), "--env", plan.env.format(task=task)]
    command += ["--episodes", str(plan.episodes), "--seed", str(SEED), "--instruction", instruction]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} gave {done.returncode}: {done.stdout}{done.stderr}")
    episodes = json.loads((output / "eval.json").read_text())["episodes"]
    return {
        "successes": sum(e["success"] for e in episodes),
        "episodes": len(episodes),
        "action_hashes": [e["action_hash"] for e in episodes],
    }

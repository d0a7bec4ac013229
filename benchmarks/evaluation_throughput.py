"""How fast evaluation runs, beside bare MuJoCo, and where the time goes.

python benchmarks/evaluation_throughput.py [--json FILE] [--quick] [--env NAME]

First the physics: steps of 2 ms per second of ``env.step`` with state observations, of a bare ``mj_step``
loop and of ``mujoco.rollout``, with the same commands on the same model, on one core and on all. Then whole
evaluations over processes: with a policy that costs nothing, with the default network in torch and as a
bundle, and with cameras.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from evaluation.policies import Sway, save_untrained
from evaluation.raw import in_processes, step_env, step_raw, step_rollout
from rich.console import Console
from rich.table import Table

from robopolicy.cli.eval import load_any
from robopolicy.evaluation.campaign import available_cores
from robopolicy.evaluation.environments import EnvRecipe, make_env
from robopolicy.evaluation.profile import Profile
from robopolicy.evaluation.rollout import evaluate
from robopolicy.export.bundle import export_bundle

REPEATS = 5  # of every measurement of physics; the median counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--env", default="lift")
    given = parser.parse_args()
    console, cores = Console(), available_cores()
    physics = measure_physics(given.env, 1_000 if given.quick else 5_000, cores)
    table = Table("physics steps/s", "1 core", f"{cores} cores")
    for name, label in (("env", "env.step, state"), ("raw", "mj_step"), ("rollout", "mujoco.rollout")):
        table.add_row(label, f"{physics[f'{name}_1']:,.0f}", f"{physics[f'{name}_all']:,.0f}")
    console.print(table)
    ratio = physics["env_all"] / physics["raw_all"]
    console.print(f"of mj_step: 1 core {physics['env_1'] / physics['raw_1']:.2f}, all {ratio:.2f}")

    rows = list(measure_evaluations(given.env, 16 if given.quick else 64, cores, console))
    table = Table(
        "evaluation", "environments", "policy steps/s", "physics", "render", "environment", "policy"
    )
    for row in rows:
        shares = [f"{row[f'share_{k}']:.0%}" for k in ("physics", "render", "environment", "policy")]
        table.add_row(row["name"], str(row["num_envs"]), f"{row['policy_steps_per_s']:.0f}", *shares)
    console.print(table)
    if given.json:
        shown = next(row for row in rows if row["name"] == "network, torch")
        tree = {
            "steps_per_s": physics["env_all"],
            "raw_steps_per_s": physics["raw_all"],
            "rollout_steps_per_s": physics["rollout_all"],
            **{key: shown[key] for key in ("share_physics", "share_render", "share_policy")},
            "cores": cores,
            "physics": physics,
            "evaluations": rows,
        }
        given.json.write_text(json.dumps(tree, indent=2) + "\n")


def measure_physics(task: str, ticks: int, cores: int) -> dict[str, float]:
    """Median rates; the three take turns, so that a busy moment of the machine hits all of them."""
    found: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        rates = {
            "env_1": step_env(task, ticks),
            "raw_1": step_raw(task, ticks),
            "rollout_1": step_rollout(task, ticks, 1),
            "env_all": in_processes(step_env, task, ticks, cores),
            "raw_all": in_processes(step_raw, task, ticks, cores),
            "rollout_all": step_rollout(task, ticks, cores),
        }
        for name, rate in rates.items():
            found.setdefault(name, []).append(rate)
    return {name: statistics.median(rates) for name, rates in found.items()}


def measure_evaluations(task: str, episodes: int, cores: int, console: Console) -> Any:
    """Rows of whole evaluations; policy steps per second, start-up of the processes apart."""
    state, every = make_env(task), make_env(task, observation_mode="all")
    image_keys = ("joint_position", "gripper_opening", *every.cameras)
    with tempfile.TemporaryDirectory() as scratch:
        saved = save_untrained(Path(scratch) / "state", state, tuple(state.specs.observation))
        export_bundle(saved, Path(scratch) / "bundle")
        seen = save_untrained(Path(scratch) / "image", every, image_keys)
        policies = (
            ("no policy cost", Sway(state.specs), (1, 4, 16, 32)),
            ("network, torch", load_any(saved), (1, 4, 16, 32)),
            ("network, bundle", load_any(Path(scratch) / "bundle"), (16,)),
            ("two cameras, torch", load_any(seen), (16,)),
        )
        for name, policy, counts in policies:
            for num_envs in counts:
                profile = Profile()
                number = episodes if num_envs >= 16 else max(episodes // 8, num_envs)
                evaluate(
                    policy,
                    EnvRecipe(task),
                    range(number),
                    num_envs=num_envs,
                    executor="processes",
                    workers=cores,
                    profile=profile,
                    console=console,
                )
                shares = {f"share_{key}": value for key, value in profile.shares().items()}
                rate = {"policy_steps_per_s": profile.steps_per_s, "startup_s": profile.startup}
                yield {"name": name, "num_envs": num_envs, **rate, **shares}
    state.close()
    every.close()


if __name__ == "__main__":
    main()

"""Does a policy go where its goal says, and elsewhere when the goal is swapped?

python benchmarks/goals.py [--quick] [--json FILE] [--store STORE] [--steps N] [--episodes N]

In ``two_goal_reach`` demonstrations go left or right by a choice that no observation shows. Three policies
learn from the same ones: without a goal, with "goal.ee_pose" from the end of each episode ("final"), and from
any later step of it ("future"). Each then plays the same layouts, none of them demonstrated, with the pose of
the left goal and with that of the right one; either way it is counted which of the two it reached. Without
--store the scripted expert's demonstrations are recorded first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from robopolicy.core.geometry import pose_9d_from_transform, transform
from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import Policy
from robopolicy.datasets.goals import GoalConfig
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import make_env
from robopolicy.evaluation.rollout import evaluate
from robopolicy.evaluation.statistics import wilson_interval
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.policies._saved import load_policy
from robopolicy.policies.diffusion_unet import Config
from robopolicy.training.train import TrainConfig, train
from robopolicy_sim.experts.two_goal_reach import TwoGoalReachExpert
from robopolicy_sim.motion import ROTATION_DOWN
from robopolicy_sim.tasks.two_goal_reach import SIDES

TASK, GOAL = "two_goal_reach", "goal.ee_pose"
SEEN = ("joint_position", "gripper_opening", "ee_pose", "left_goal", "right_goal")
HORIZONS = Horizons(observation=2, prediction=8, action=4)
FIRST_SEED = 1_000_000
POLICIES: dict[str, tuple[tuple[str, ...], GoalConfig]] = {
    "no goal": (SEEN, GoalConfig()),
    "final": ((*SEEN, GOAL), GoalConfig("final")),
    "future": ((*SEEN, GOAL), GoalConfig("future")),
}


class GoalGiven:
    """An environment that shows, besides, the pose that reaches one side.

    Args:
        counted: the side that counts as success; shown: the side whose pose is the goal.
    """

    def __init__(self, counted: str, shown: str) -> None:
        self._env = make_env(TASK, goal=counted)
        self._shown = shown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        raw, info = self._env.reset(**options)
        return self._with_goal(raw), info

    def step(self, action: Any) -> tuple[Any, ...]:
        raw, *rest = self._env.step(action)
        return (self._with_goal(raw), *rest)

    def _with_goal(self, raw: dict[str, Any]) -> dict[str, Any]:
        pose = pose_9d_from_transform(transform(ROTATION_DOWN, raw[f"{self._shown}_goal"]))
        return {**raw, GOAL: pose.astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="little training, few episodes")
    parser.add_argument("--store", type=Path, help="demonstrations of two_goal_reach")
    parser.add_argument("--steps", type=int, help="of training; 3000, quick 300")
    parser.add_argument("--episodes", type=int, help="per goal and side; 100, quick 10")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    given = parser.parse_args()
    usual = (300, 10) if given.quick else (3_000, 100)
    steps, episodes = given.steps or usual[0], given.episodes or usual[1]
    console, results = Console(), {}
    with tempfile.TemporaryDirectory() as scratch:
        store = given.store or demonstrations(Path(scratch) / "demos.zarr", 30 if given.quick else 100)
        for name, (keys, goal) in POLICIES.items():
            run = Path(scratch) / name.replace(" ", "_")
            trained = learn(store, run, keys, goal, steps, given.seed, console)
            reached = reach(load_policy(run), episodes, console)
            results[name] = {"reached": reached, "train_seconds": trained["train_seconds"]}
    console.print(as_table(results, episodes))
    tree = {"policies": results, "steps": steps, "episodes": episodes, "seed": given.seed}
    if given.json:
        given.json.write_text(json.dumps(tree, indent=2) + "\n")


def demonstrations(path: Path, count: int) -> Path:
    """The expert's, who draws a side for each."""
    env = make_env(TASK)
    record(env, TwoGoalReachExpert(), EpisodeStore.create(path, env.specs), range(count))
    env.close()
    return path


def learn(
    store: Path, run: Path, keys: tuple[str, ...], goal: GoalConfig, steps: int, seed: int, console: Console
) -> dict[str, Any]:
    """A small diffusion policy."""
    model = Config(channels=(32, 64), schedule=ScheduleConfig(denoising_steps=8))
    config = TrainConfig(
        steps=steps,
        batch_size=64,
        learning_rate=1e-3,
        warmup_steps=min(100, steps // 10),
        keys=keys,
        goal=goal,
        horizons=HORIZONS,
        seed=seed,
        threads=1,
        device="cpu",
        trackers=(),
    )
    return train(store, run, policy_config=model, config=config, console=console)


def reach(policy: Policy, episodes: int, console: Console) -> dict[str, dict[str, int]]:
    """Side whose pose is the goal to side to episodes that reached it, on the same seeds."""
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    counts: dict[str, dict[str, int]] = {}
    for shown in SIDES:
        for counted in SIDES:
            make: Callable[[], Any] = partial(GoalGiven, counted, shown)
            won = sum(result.success for result in evaluate(policy, make, seeds, console=console))
            counts.setdefault(shown, {})[counted] = won
    return counts


def as_table(results: dict[str, Any], episodes: int) -> Table:
    """Rows of policy and goal; how many of the episodes reached which side, with 95 % intervals."""
    table = Table("policy", "goal", *(f"reached {side}" for side in SIDES), "training s")
    for name, result in results.items():
        for shown, reached in result["reached"].items():
            cells = []
            for side in SIDES:
                low, high = wilson_interval(reached[side], episodes)
                cells.append(f"{reached[side]}/{episodes} [{low:.2f}, {high:.2f}]")
            table.add_row(name, shown, *cells, f"{result['train_seconds']:.0f}")
    return table


if __name__ == "__main__":
    main()

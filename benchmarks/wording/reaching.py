"""Policies that are told where to go: demonstrations of both sides, training, and where they then go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kept.training import train_once
from rich.console import Console

from robopolicy.core.policy import Policy
from robopolicy.datasets.recorder import record
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import EXPERTS, load_entry, make_env
from robopolicy.evaluation.rollout import evaluate
from robopolicy.policies._saved import load_policy
from robopolicy.policies.diffusion_unet import Config
from robopolicy.training.config import TrainConfig

TASK = "two_goal_reach"
SIDES = ("left", "right")
NOISE = 0.005  # [rad] of the expert, as ``robopolicy record`` has it


@dataclass(frozen=True)
class Went:
    """One episode under one instruction.

    Args:
        side: "left" or "right" when the tool came to rest there, else "".
        path: (steps, 2) of the tool [m], in the frame of the two goals: the second is towards the left one.
    """

    side: str
    path: np.ndarray[Any, np.dtype[np.float64]]


class Watched:
    """``two_goal_reach`` where both goals count, asking for what it is told to, noting where the tool goes.

    Args:
        orders: (start, instruction) of the episode with this number.
        paths: filled with that of every episode.
    """

    def __init__(self, orders: Sequence[tuple[int, str]], paths: dict[int, list[Any]]) -> None:
        self._env, self._orders, self._paths = make_env(TASK), orders, paths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *, seed: int) -> Any:
        self._path: list[Any] = []
        self._paths[seed] = self._path
        start, text = self._orders[seed]
        observation, info = self._env.reset(seed=start)
        self._note()
        return observation, {**info, "instruction": text}

    def step(self, action: Any) -> Any:
        made = self._env.step(action)
        self._note()
        return made

    def _note(self) -> None:
        data = self._env.unwrapped.simulation.data
        left, right = (data.site(f"goal_{side}").xpos[:2] for side in SIDES)
        tool = data.site(f"{self._env.unwrapped.robot.name}_tcp").xpos[:2]
        across = (left - right) / np.linalg.norm(left - right)
        offset = tool - (left + right) / 2
        self._path.append((offset @ np.array([across[1], -across[0]]), offset @ across))


def demonstrations(folder: Path, episodes: int, console: Console) -> list[Path]:
    """A store for each side, of different starts."""
    stores = []
    for number, side in enumerate(SIDES):
        path = folder / f"{side}.zarr"
        if path.exists():
            if (there := len(EpisodeStore.open(path).names)) != episodes:
                raise SystemExit(f"{path} holds {there} episodes, not {episodes}; choose another --output")
        else:
            env = make_env(TASK, goal=side)
            store = EpisodeStore.create(path, env.specs, {"task": TASK, "goal": side})
            seeds = range(number * episodes, (number + 1) * episodes)
            record(env, load_entry(EXPERTS, "expert", TASK)(noise=NOISE), store, seeds, console)
            env.close()
        stores.append(path)
    return stores


def trained(
    stores: Sequence[Path], output: Path, phrasings: str, *, steps: int, seed: int, console: Console
) -> Policy:
    """A small diffusion policy on both stores; one that an earlier call has trained so is read back."""
    config = TrainConfig(
        steps=steps,
        batch_size=64,
        instruction="words",
        phrasings=phrasings,
        seed=seed,
        threads=1,
        trackers=(),
        save_every=steps,
        device="cpu",
    )
    options = Config(channels=(32, 64, 128))
    train_once(output, [str(path) for path in stores], config, console, "diffusion_unet", options)
    return load_policy(output, device="cpu")


def go(policy: Policy, orders: Sequence[tuple[int, str]], console: Console) -> list[Went]:
    """Where the policy goes from each start when it is told this: one episode per (start, instruction)."""
    paths: dict[int, list[Any]] = {}
    results = evaluate(policy, lambda: Watched(orders, paths), range(len(orders)), console=console)
    went = []
    for result in results:
        path = np.array(paths[result.seed])
        side = SIDES[int(path[-1, 1] < 0)] if result.success else ""
        went.append(Went(side, path))
    return went

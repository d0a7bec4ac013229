"""Tiny trainings and how to interrupt them, shared by the tests of the training loop."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from synthetic import make_episode, make_specs

from robopolicy.core.horizons import Horizons
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.policies.diffusion_unet import Config
from robopolicy.training.checkpoint import newest_state
from robopolicy.training.config import TrainConfig
from robopolicy.training.train import train
from robopolicy.training.update import Update

SCHEDULE = ScheduleConfig(training_steps=20, denoising_steps=4)
TINY = Config(channels=(8, 16), step_embedding=8, schedule=SCHEDULE)
SHORT = TrainConfig(
    steps=12, batch_size=16, warmup_steps=3, learning_rate=3e-3, horizons=Horizons(2, 8, 4), threads=1,
    device="cpu", log_every=4, save_every=5, trackers=(),
)  # fmt: skip
TIMES = ("seconds", "samples_per_s")


def make_store(path: Path, *, episodes: int = 4, first: int = 0, instruction: str = "do it") -> EpisodeStore:
    """Actions that follow from what is seen: the goal, approached. 20 steps an episode."""
    specs = make_specs(image=True)
    store = EpisodeStore.create(path, specs)
    for seed in range(first, first + episodes):
        episode = make_episode(specs, 20, seed, instruction=instruction)
        goal = episode.observation["goal"].value
        action = np.column_stack([goal, goal[:, 0] * goal[:, 1]]).astype(np.float32)
        store.append(dataclasses.replace(episode, action=Signal(action, episode.action.time_ns)))
    return store


def quick(store: Any, output: Path, policy_config: Any = TINY, **changes: Any) -> dict[str, Any]:
    """A training of 12 steps unless told otherwise; ``names``, ``weights``, ``family`` go to ``train``."""
    own = {name: changes.pop(name) for name in ("names", "weights", "family", "console") if name in changes}
    own.setdefault("console", quiet())
    path = [s.path for s in store] if isinstance(store, (list, tuple)) else store.path
    config = dataclasses.replace(SHORT, **changes)
    return train(path, output, policy_config=policy_config, config=config, **own)


def quiet() -> Console:
    """Remembers what is said, see ``said``."""
    return Console(file=io.StringIO(), width=400)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def signal_at(monkeypatch: Any, step: int, signum: int = signal.SIGTERM, after: Any = None) -> None:
    """Signal this process while update ``step`` (from 1) is computed, or call ``after`` there instead."""
    inner, done = Update.__call__, [0]

    def call(self: Update, batch: Any) -> torch.Tensor:
        done[0] += 1
        if done[0] == step:
            signal.raise_signal(signum) if after is None else after()
        return inner(self, batch)

    monkeypatch.setattr(Update, "__call__", call)


def lines(run: Path) -> list[dict[str, float]]:
    """Of ``metrics.jsonl``, without what a clock says."""
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in every]


def tensors(tree: Any, name: str = "") -> dict[str, Any]:
    """Leaves of nested dicts and lists by path."""
    if isinstance(tree, dict):
        pairs = tree.items()
    elif isinstance(tree, list):
        pairs = enumerate(tree)
    else:
        return {name: tree}
    return {key: leaf for k, value in pairs for key, leaf in tensors(value, f"{name}/{k}").items()}


def assert_same_run(first: Path, second: Path) -> None:
    """Bit for bit: every tensor and number of the last checkpoints, the saved policies, the metrics."""
    states = [newest_state(run) for run in (first, second)]
    assert states[0] is not None and states[1] is not None
    one, two = (tensors(state[0]) for state in states)
    assert one.keys() == two.keys() and len(one) > 20
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == two[name].dtype and torch.equal(value, two[name]), name
        elif name != "/training/seconds":
            assert value == two[name], name
    for file in ("policy/weights.safetensors", "policy/policy.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    assert lines(first) == lines(second)

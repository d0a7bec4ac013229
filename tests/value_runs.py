"""Tiny trainings of critics, shared by their tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthetic import make_episode, make_specs
from training_runs import lines, quiet, tensors

from robopolicy.core.horizons import Horizons
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.models.critics import CriticConfig
from robopolicy.training.checkpoint import newest_state
from robopolicy.training.config import HeldOutConfig
from robopolicy.training.value.config import ValueTrainConfig
from robopolicy.training.value.train import train_value

TINY = CriticConfig(members=2, hidden=(16, 16))
SHORT = ValueTrainConfig(
    steps=12, batch_size=16, warmup_steps=3, learning_rate=3e-3, horizons=Horizons(2, 8, 4), threads=1,
    device="cpu", log_every=4, save_every=5, trackers=(), held_out=HeldOutConfig(fraction=0.25, every=6),
)  # fmt: skip


def make_value_store(
    path: Path, *, successes: int = 4, failures: int = 4, first: int = 0, instruction: str = "do it",
    rewards: bool = False,
) -> EpisodeStore:  # fmt: skip
    """Successes approach the goal in 20 steps; failures shy away from it for 30."""
    specs = make_specs()
    store = EpisodeStore.create(path, specs)
    for place in range(successes + failures):
        won = place < successes
        length = 20 if won else 30
        episode = make_episode(specs, length, first + place, instruction=instruction, success=won)
        goal = episode.observation["goal"].value * (1 if won else -1)
        action = np.column_stack([goal, goal[:, 0] * goal[:, 1]]).astype(np.float32)
        extra = dict(episode.extra)
        if rewards:
            told = np.linspace(0, 1 if won else 0.2, length)
            extra["reward"] = Signal(told, episode.action.time_ns)
        signal = Signal(action, episode.action.time_ns)
        store.append(dataclasses.replace(episode, action=signal, extra=extra))
    return store


def quick_value(store: Any, output: Path, **changes: Any) -> dict[str, Any]:
    """A training of 12 steps unless told otherwise; options of ``train_value`` go there."""
    own = ("objective", "options", "reward", "returns", "policy", "weights", "console", "critic")
    given = {name: changes.pop(name) for name in own if name in changes}
    path = [s.path for s in store] if isinstance(store, (list, tuple)) else store.path
    config = dataclasses.replace(SHORT, **changes)
    return train_value(path, output, config=config, **{"critic": TINY, "console": quiet(), **given})


def assert_same_critic_run(first: Path, second: Path) -> None:
    """Bit for bit: every tensor and number of the last checkpoints, the saved critics, metrics, measures."""
    states = [newest_state(run) for run in (first, second)]
    assert states[0] is not None and states[1] is not None
    one, two = (tensors(state[0]) for state in states)
    assert one.keys() == two.keys() and len(one) > 20
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == two[name].dtype and torch.equal(value, two[name]), name
        elif name != "/training/seconds":
            assert value == two[name], name
    for file in ("critic/weights.safetensors", "critic/critic.json", "value.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    assert lines(first) == lines(second)

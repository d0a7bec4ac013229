"""Chunks cut from clean demonstrations, through the real scheduler and the real filter."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robopolicy import robots
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import PolicySpecs
from robopolicy.datasets.episode import Episode
from robopolicy.datasets.store import EpisodeStore
from robopolicy.runtime import ChunkScheduler, SafetyConfig, SafetyFilter

HORIZONS = Horizons()


@dataclass
class Replay:
    """Chunks and those of which no tick was modified; ticks modified by reason."""

    chunks: int = 0
    unmodified: int = 0
    ticks: int = 0
    modified_ticks: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def replay(path: Path, rate: float, episodes: int) -> Replay:
    """Play every episode's actions as chunks, a new one every 8 actions and without delay.

    Args:
        path: of a store of joint_position demonstrations.
        rate: of the filter [Hz].
        episodes: at most so many.
    """
    store = EpisodeStore.open(path)
    robot = robots.load(store.specs.robot)
    specs, result = PolicySpecs(store.specs, HORIZONS), Replay()
    for number, name in enumerate(store.names):
        if number == episodes:
            break
        episode = store.read(name, keys=("joint_position", "gripper_opening"))
        scheduler = ChunkScheduler(specs, limits=robot.limits)
        guard = SafetyFilter(robot.limits, rate, SafetyConfig.for_robot(robot))
        _play(episode, scheduler, guard, result)
    return result


def _play(episode: Episode, scheduler: ChunkScheduler, guard: SafetyFilter, result: Replay) -> None:
    actions = np.asarray(episode.action.value, dtype=np.float32)
    rate, policy_rate = guard.control_rate, scheduler.policy_specs.specs.policy_rate
    first = [np.asarray(episode.observation[k].value)[0] for k in ("joint_position", "gripper_opening")]
    position: NDArray[np.float64] = np.concatenate(first).astype(np.float64)
    guard.reset(position)
    scheduler.reset(position, 0)
    for step in range(0, len(actions), HORIZONS.action):
        now_ns = round(step * 1e9 / policy_rate)
        index = np.clip(np.arange(HORIZONS.prediction) + step - HORIZONS.action_start, 0, len(actions) - 1)
        assert scheduler.accept(actions[index], now_ns, now_ns)
        changed = 0
        ticks = round(min(HORIZONS.action, len(actions) - step) * rate / policy_rate)
        for tick in range(1, ticks + 1):
            desired, _ = scheduler.reference(now_ns + round(tick * 1e9 / rate))
            _, reasons = guard.filter(desired)
            changed += bool(reasons)
            result.reasons.update(reasons)
        result.chunks += 1
        result.unmodified += not changed
        result.ticks += ticks
        result.modified_ticks += changed

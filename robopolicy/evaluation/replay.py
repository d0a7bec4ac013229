"""Open-loop control: replay demonstrations elsewhere. A task that this solves needs no policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robopolicy.core.policy import keyed_rng
from robopolicy.datasets.store import EpisodeStore


def replay_open_loop(env: Any, store: EpisodeStore, seeds: Sequence[int], *, seed: int = 0) -> int:
    """How many of the ``seeds`` a randomly chosen demonstration's actions solve, played blindly."""
    names = store.names
    chosen = keyed_rng(seed).integers(len(names), size=len(seeds))
    successes = 0
    for start, index in zip(seeds, chosen):
        env.reset(seed=int(start))
        actions = store.read(names[index], keys=()).action.value
        info: dict[str, Any] = {}
        for step in range(10_000):
            action = actions[min(step, len(actions) - 1)]  # then hold the last one
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break
        successes += bool(info.get("is_success", False))
    return successes

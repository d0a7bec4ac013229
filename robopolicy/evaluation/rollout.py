"""Run a policy in many copies of an environment, in lockstep, with batched inference.

Results do not depend on how many copies run: noise is keyed by (noise seed, episode seed, step), and
inference always sees batches of one size, padded, since rows of a batch are not bit-equal across batch sizes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robopolicy.core.errors import ConfigError
from robopolicy.core.history import History
from robopolicy.core.policy import Policy, draw_noise, keyed_rng
from robopolicy.evaluation.environments import named_observation
from robopolicy.evaluation.results import EpisodeResult

INFERENCE_BATCH = 16


@dataclass
class _Slot:
    """One environment with the episode that runs in it."""

    env: Any
    history: History
    episode: int = -1
    seed: int = 0
    step: int = 0
    chunk: NDArray[np.float32] | None = None
    rewards: list[float] = field(default_factory=list)
    maxima: dict[str, float] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    digest: Any = None
    frames: list[NDArray[np.uint8]] = field(default_factory=list)


def evaluate(
    policy: Policy,
    make: Callable[[], Any],
    seeds: Sequence[int],
    *,
    noise_seed: int = 0,
    num_envs: int = 16,
    film: int = 0,
    on_film: Callable[[int, bool, list[NDArray[np.uint8]]], None] | None = None,
    console: Console | None = None,
) -> list[EpisodeResult]:
    """One episode per seed, executed in receding horizon.

    Args:
        make: builds one environment; episodes end when it terminates or truncates.
        seeds: of ``env.reset``; results come in this order.
        noise_seed: first part of the key of the policy's noise; the episode's seed and step are the others.
        film: how many of the first episodes to render.
        on_film: called with (seed, success, frames) after each filmed episode.
    Raises:
        ConfigError: no seeds; SpecError, ShapeError: policy and environment disagree.
    """
    if not seeds:
        raise ConfigError("evaluation needs at least one episode")
    if num_envs < 1:
        raise ConfigError(f"num_envs must be >= 1, got {num_envs}")
    slots = [_Slot(make(), History(policy.policy_specs)) for _ in range(min(num_envs, len(seeds)))]
    results: dict[int, EpisodeResult] = {}
    waiting = iter(range(len(seeds)))
    columns = (
        TextColumn("evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
    )
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("evaluate", total=len(seeds), status="")
            active = [s for s in slots if _begin(s, waiting, seeds, policy, film)]
            while active:
                _plan(policy, active, noise_seed)
                for slot in list(active):
                    result = _advance(slot, policy, seeds, film)
                    if result is None:
                        continue
                    results[slot.episode] = result
                    if slot.frames and on_film is not None:
                        on_film(result.seed, result.success, slot.frames)
                    won = sum(r.success for r in results.values())
                    progress.update(task, advance=1, status=f"{won}/{len(results)} succeed")
                    if not _begin(slot, waiting, seeds, policy, film):
                        active.remove(slot)
    finally:
        for slot in slots:
            slot.env.close()
    return [results[i] for i in range(len(seeds))]


def _begin(slot: _Slot, waiting: Any, seeds: Sequence[int], policy: Policy, film: int) -> bool:
    episode = next(waiting, None)
    if episode is None:
        return False
    slot.seed = int(seeds[episode])
    raw, _ = slot.env.reset(seed=slot.seed)
    observation = named_observation(raw, policy.policy_specs)
    slot.history.reset()
    slot.history.push(observation)
    slot.episode, slot.step, slot.chunk = episode, 0, None
    slot.rewards, slot.maxima, slot.digest = [], {}, hashlib.sha256()
    slot.start = {k: v.tolist() for k, v in observation.items() if v.ndim <= 2}
    slot.frames = [slot.env.render()] if episode < film else []
    return True


def _plan(policy: Policy, active: list[_Slot], noise_seed: int) -> None:
    """Ask for new chunks where the executed part of the last one is used up."""
    specs = policy.policy_specs
    due = [s for s in active if s.step % specs.horizons.action == 0]
    for first in range(0, len(due), INFERENCE_BATCH):
        group = due[first : first + INFERENCE_BATCH]
        rows = [*group, *[group[0]] * (INFERENCE_BATCH - len(group))]
        windows = [slot.history.window() for slot in rows]
        observation = {name: np.stack([w[name] for w in windows]) for name in windows[0]}
        noise = np.stack([draw_noise(specs, 1, keyed_rng(noise_seed, s.seed, s.step)) for s in rows])
        chunks = policy.sample(observation, noise)
        for slot, candidates in zip(group, chunks):
            slot.chunk = candidates[0]


def _advance(slot: _Slot, policy: Policy, seeds: Sequence[int], film: int) -> EpisodeResult | None:
    specs = policy.policy_specs
    assert slot.chunk is not None
    action = slot.chunk[specs.horizons.action_start + slot.step % specs.horizons.action]
    slot.digest.update(action.tobytes())
    raw, reward, terminated, truncated, info = slot.env.step(action)
    slot.step += 1
    slot.rewards.append(float(reward))
    for key, value in info.items():
        if key != "time" and isinstance(value, (float, np.floating)):
            slot.maxima[key] = max(slot.maxima.get(key, -np.inf), float(value))
    if slot.episode < film:
        slot.frames.append(slot.env.render())
    if not (terminated or truncated):
        slot.history.push(named_observation(raw, specs))
        return None
    return EpisodeResult(
        seed=slot.seed,
        success=bool(info.get("is_success", info.get("success", terminated))),
        total_reward=float(np.sum(slot.rewards)),
        max_reward=float(np.max(slot.rewards)),
        steps=slot.step,
        seconds=slot.step / specs.specs.policy_rate,
        maxima=slot.maxima,
        start=slot.start,
        unstable=bool(info.get("unstable", False)),
        action_hash=slot.digest.hexdigest(),
    )

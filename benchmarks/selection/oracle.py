"""The upper bound: every candidate is played in a copy of the world, and the best is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.history import History
from robopolicy.core.policy import Context, Policy, draw_noise, keyed_rng
from robopolicy.evaluation.environments import named_observation
from robopolicy.evaluation.results import EpisodeResult


class Foreseen(NamedTuple):
    """What comes of a chunk; compared in this order."""

    success: bool
    sooner: int  # minus the steps to success
    reward: float  # dense, when the chunk ends


class World(Protocol):
    """Tries actions from the present moment and comes back to it."""

    def foresee(self, actions: NDArray[np.float32]) -> Foreseen:
        """(count, action_dim) actions from now on; the environment is afterwards as it was."""
        ...


class SnapshotWorld:
    """A MuJoCo task: its snapshots give bit-equal trajectories."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def foresee(self, actions: NDArray[np.float32]) -> Foreseen:
        before = self._env.snapshot()
        try:
            return play_out(self._env, actions)
        finally:
            self._env.restore(before)


class TwinWorld:
    """Push-T, which has no snapshots: a second one is put into the state of the first. What bodies touch each
    other with is not copied, so the future is a close guess."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._twin = type(env._env)(obs_type="state", render_mode="rgb_array")  # without a time limit
        self._twin.reset(seed=0)

    def foresee(self, actions: NDArray[np.float32]) -> Foreseen:
        for name in ("agent", "block"):
            real, other = getattr(self._env._env, name), getattr(self._twin, name)
            other.angle = real.angle  # before the position, which turning about the centre of mass moves
            for what in ("position", "velocity", "angular_velocity"):
                setattr(other, what, getattr(real, what))
            other.space.reindex_shapes_for_body(other)
        return play_out(self._twin, actions)


def play_out(env: Any, actions: NDArray[np.float32]) -> Foreseen:
    """Execute them, or fewer if the episode ends."""
    reward, success, count = 0.0, False, 0
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        count += 1
        success = bool(info.get("is_success", terminated))
        if terminated or truncated:
            break
    return Foreseen(success, -count if success else 0, float(reward))


def world_of(env: Any) -> World:
    """Whatever can look ahead in this environment."""
    return SnapshotWorld(env) if hasattr(env, "snapshot") else TwinWorld(env)


def evaluate_oracle(
    policy: Policy,
    make: Callable[[], Any],
    seeds: Sequence[int],
    candidates: int,
    *,
    noise_seed: int = 0,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
) -> tuple[list[EpisodeResult], dict[str, int]]:
    """One episode per seed, and counts. Every candidate is judged by playing the whole of what it predicts.

    Noise is keyed as in ``evaluation.rollout``: in the same state other selectors choose among the same.
    """
    env = make()
    world, counts = world_of(env), {"decisions": 0, "other_than_first": 0}
    found = []
    try:
        for seed in seeds:
            found.append(_play(policy, env, world, int(seed), candidates, noise_seed, counts))
            on_episode(found[-1])
    finally:
        env.close()
    return found, counts


def _play(
    policy: Policy,
    env: Any,
    world: World,
    seed: int,
    candidates: int,
    noise_seed: int,
    counts: dict[str, int],
) -> EpisodeResult:
    specs = policy.policy_specs
    many = dataclasses.replace(specs, noise_shape=(candidates, *specs.noise_shape))
    history, rewards, success, over = History(specs), list[float](), False, False
    history.push(named_observation(env.reset(seed=seed)[0], specs))
    told = Context((env.instruction,)) if specs.instruction_dim else Context()
    while not over:
        window = {name: value[None] for name, value in history.window().items()}
        noise = draw_noise(many, 1, keyed_rng(noise_seed, seed, len(rewards)))
        chunks = policy.sample(window, noise, told)[0]
        futures = [world.foresee(chunk[specs.horizons.action_start :]) for chunk in chunks]
        best = max(range(candidates), key=lambda i: futures[i])
        counts["decisions"] += 1
        counts["other_than_first"] += best > 0
        for action in chunks[best][specs.horizons.executed]:
            raw, reward, terminated, truncated, info = env.step(np.ascontiguousarray(action))
            rewards.append(float(reward))
            success = bool(info.get("is_success", terminated))
            if over := bool(terminated or truncated):
                break
            history.push(named_observation(raw, specs))
    return EpisodeResult(
        seed=seed,
        success=success,
        total_reward=float(np.sum(rewards)),
        max_reward=max(rewards),
        steps=len(rewards),
        seconds=len(rewards) / specs.specs.policy_rate,
    )

"""Push-T demonstrations of mixed quality: human ones, half of them executed anew with noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.policy import keyed_rng
from robopolicy.core.provenance import provenance
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.adapters.gym_pusht import SIDE, PushTEnv
from selection.recipes import Task

CORRELATION_S = 1.0  # of the noise: an Ornstein-Uhlenbeck process on each axis
Float = NDArray[np.floating[Any]]
STREAM = 17  # keeps this chance apart from other uses of the same episode number


def mixed_store(source: Path, task: Task, target: Path, most: int | None = None) -> EpisodeStore:
    """Some episodes as a person recorded them, all successes; the others executed anew with noise.

    Which episodes get noise, and what noise, depends on their number alone. Their actions are recorded as
    executed, success and rewards as the simulator finds them.

    Args:
        source: store of the human demonstrations.
        most: the first so many episodes alone.
    """
    assert task.corrupted is not None
    demonstrations = EpisodeStore.open(source)
    env = PlacedPushT()
    env.reset(seed=0)
    store = EpisodeStore.create(target, env.specs, provenance(task=task.env, config=task))
    try:
        for number, name in enumerate(demonstrations.names[:most]):
            recorded = demonstrations.read(name)
            rng = keyed_rng(number, STREAM)
            if rng.uniform() < task.corrupted:
                noise = correlated(len(recorded), task.noise, env.specs.policy_rate, rng)
                actions = np.clip(recorded.action.value + noise, 0.0, SIDE).astype(np.float32)
                store.append(_executed(env, recorded.observation["state"].value[0], actions, number))
            else:
                store.append(_as_recorded(env, recorded, number))
    finally:
        env.close()
    return store


class PlacedPushT(PushTEnv):
    """Push-T that can begin anywhere."""

    def put(self, state: Float) -> None:
        """Place agent and block at rest: (agent_x, agent_y, block_x, block_y [px], block_angle [rad])."""
        agent, block = self._env.agent, self._env.block
        block.angle = float(state[4])  # first: turning about the centre of mass moves the position
        agent.position, block.position = tuple(map(float, state[:2])), tuple(map(float, state[2:4]))
        for body in (agent, block):
            body.velocity, body.angular_velocity = (0.0, 0.0), 0.0
            body.space.reindex_shapes_for_body(body)
        self._state = np.asarray(state, np.float64)

    def reward_in(self, state: Float) -> float:
        """Of lying there: the share of the target that is covered, as a share of what success takes."""
        self.put(state)
        inner: Any = self._env
        return float(np.clip(inner._get_coverage() / inner.success_threshold, 0.0, 1.0))


def correlated(steps: int, deviation: float, rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(steps, 2) of an Ornstein-Uhlenbeck process with this standard deviation [px]."""
    kept = np.exp(-1 / (rate * CORRELATION_S))
    values = np.zeros((steps, 2))
    present = rng.standard_normal(2)
    for step in range(steps):
        values[step] = present
        present = kept * present + np.sqrt(1 - kept**2) * rng.standard_normal(2)
    return deviation * values


def _as_recorded(env: PlacedPushT, recorded: Episode, number: int) -> Episode:
    """With the reward of every state that the recording reached."""
    states = recorded.observation["state"].value
    rewards = [env.reward_in(state) for state in (*states[1:], states[-1])]
    return _episode(env, states, recorded.action.value, rewards, number, success=True)


def _executed(env: PlacedPushT, start: Float, actions: NDArray[np.float32], number: int) -> Episode:
    """From this state, until success or the last action."""
    env.reset(seed=number)
    env.put(start)
    states, rewards, success = [start], list[float](), False
    for action in actions:
        outcome = env.advance(action)
        states.append(np.asarray(env.observe()["state"]))
        rewards.append(outcome.reward)
        success = bool(outcome.success)
        if success:
            break
    return _episode(env, np.stack(states), actions, rewards, number, success=success, corrupted=True)


def _episode(
    env: PlacedPushT,
    states: NDArray[Any],
    actions: NDArray[Any],
    rewards: list[float],
    number: int,
    *,
    success: bool,
    corrupted: bool = False,
) -> Episode:
    """As many actions as there are rewards."""
    count = len(rewards)
    time_ns = np.arange(len(states), dtype=np.int64) * round(1e9 / env.specs.policy_rate)
    values = {"state": states.astype(np.float32), "agent_pos": states[:, :2].astype(np.float32)}
    return Episode(
        observation={key: Signal(values[key], time_ns) for key in env.specs.observation},
        action=Signal(actions[:count].astype(np.float32), time_ns[:count]),
        extra={"reward": Signal(np.array(rewards, np.float32), time_ns[:count])},
        instruction=env.instruction,
        success=success,
        seed=number,
        clock="simulation",
        metadata={"corrupted": corrupted},
    )

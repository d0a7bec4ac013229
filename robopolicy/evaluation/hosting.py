"""The environment side of an evaluation: runs episodes chunk by chunk, in whatever process it lives.

A host knows nothing of policies but their specs. It is told to begin an episode in one of its slots and to
execute actions there; it answers with the observations that the next chunk needs, or with the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import NonFiniteValueError
from robopolicy.core.history import History
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.environments import named_observation
from robopolicy.evaluation.results import EpisodeResult


@dataclass(frozen=True)
class Begin:
    """Start the episode of this seed; ``film`` is where its video goes."""

    slot: int
    seed: int
    film: Path | None = None


@dataclass(frozen=True)
class Advance:
    """Execute (number, action_dim) actions, or fewer if the episode ends."""

    slot: int
    actions: NDArray[np.float32]


@dataclass(frozen=True)
class Spent:
    """Of one request: policy steps taken and seconds, as in ``Profile.add``."""

    steps: int
    physics: float
    render: float
    total: float


@dataclass(frozen=True)
class Ready:
    """The episode goes on: (observation_horizon, ...) of every observation, for the chunk from ``step``.

    Args:
        past: (action_start, action_dim) what was executed at the older instants of the window, oldest first;
            NaN before the episode began.
    """

    slot: int
    step: int
    window: dict[str, NDArray[Any]]
    past: NDArray[np.float32]
    instruction: str
    spent: Spent


@dataclass(frozen=True)
class Finished:
    """The episode is over."""

    slot: int
    result: EpisodeResult
    spent: Spent


Request = Begin | Advance
Answer = Ready | Finished


@dataclass
class _Episode:
    """What accumulates between ``Begin`` and ``Finished``."""

    seed: int
    film: Path | None
    instruction: str
    conditions: dict[str, Any]
    start: dict[str, Any]
    frames: list[NDArray[np.uint8]]
    step: int = 0
    rewards: list[float] = field(default_factory=list)
    maxima: dict[str, float] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)
    executed: list[NDArray[np.float32]] = field(default_factory=list)


class EnvHost:
    """A few environments, made when first used.

    Args:
        make: builds one environment.
        specs: of the policy, for names, history and rates.
    """

    def __init__(self, make: Callable[[], Any], specs: PolicySpecs) -> None:
        self._make = make
        self._specs = specs
        self._envs: dict[int, Any] = {}
        self._histories: dict[int, History] = {}
        self._episodes: dict[int, _Episode] = {}

    def handle(self, request: Request) -> Answer:
        """Do what is asked.

        Raises:
            SpecError, ShapeError: environment and policy disagree.
        """
        slot = request.slot
        if slot not in self._envs:
            self._envs[slot], self._histories[slot] = self._make(), History(self._specs)
        env = self._envs[slot]
        before, start = _timings(env), perf_counter()
        if isinstance(request, Begin):
            steps, result = 0, self._begin(slot, request)
        else:
            steps, result = self._advance(slot, request.actions)
        after = _timings(env)
        spent = Spent(steps, after[0] - before[0], after[1] - before[1], perf_counter() - start)
        if result is not None:
            return Finished(slot, result, spent)
        episode = self._episodes[slot]
        window = self._histories[slot].window()
        return Ready(slot, episode.step, window, self._past(episode), episode.instruction, spent)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()

    def _begin(self, slot: int, request: Begin) -> EpisodeResult | None:
        env, history = self._envs[slot], self._histories[slot]
        raw, info = env.reset(seed=request.seed)
        observation = named_observation(raw, self._specs)
        history.reset()
        history.push(observation)
        self._episodes[slot] = _Episode(
            seed=request.seed,
            film=request.film,
            instruction=str(info.get("instruction", _attribute(env, "instruction", ""))),
            conditions=dict(info.get("conditions", {})),
            start={k: v.tolist() for k, v in observation.items() if v.ndim <= 2},
            frames=[env.render()] if request.film is not None else [],
        )
        return None

    def _advance(self, slot: int, actions: NDArray[np.float32]) -> tuple[int, EpisodeResult | None]:
        env, episode = self._envs[slot], self._episodes[slot]
        for number, action in enumerate(actions, start=1):
            episode.digest.update(action.tobytes())
            episode.executed.append(action)
            raw, reward, terminated, truncated, info = env.step(action)
            episode.step += 1
            if np.isfinite(reward):
                episode.rewards.append(float(reward))
            for key, value in info.items():
                if key != "time" and isinstance(value, (float, np.floating)) and np.isfinite(value):
                    episode.maxima[key] = max(episode.maxima.get(key, -np.inf), float(value))
            if episode.film is not None:
                episode.frames.append(env.render())
            if not (terminated or truncated):
                try:
                    self._histories[slot].push(named_observation(raw, self._specs))
                    continue
                except NonFiniteValueError:  # the simulator broke down without saying so
                    info = {**info, "unstable": True, "is_success": False}
            return number, self._finish(episode, info, bool(terminated))
        return len(actions), None

    def _past(self, episode: _Episode) -> NDArray[np.float32]:
        wanted = self._specs.horizons.action_start
        past = np.full((wanted, self._specs.specs.action.dim), np.nan, np.float32)
        if known := episode.executed[max(0, len(episode.executed) - wanted) :]:
            past[-len(known) :] = known
        return past

    def _finish(self, episode: _Episode, info: dict[str, Any], terminated: bool) -> EpisodeResult:
        result = EpisodeResult(
            seed=episode.seed,
            success=bool(info.get("is_success", info.get("success", terminated))),
            total_reward=float(np.sum(episode.rewards)),
            max_reward=float(max(episode.rewards, default=0.0)),
            steps=episode.step,
            seconds=episode.step / self._specs.specs.policy_rate,
            maxima=episode.maxima,
            start=episode.start,
            unstable=bool(info.get("unstable", False)),
            conditions=episode.conditions,
            action_hash=episode.digest.hexdigest(),
        )
        if episode.film is None:
            return result
        from robopolicy.evaluation.video import mark_outcome, write_video

        frames = mark_outcome(episode.frames, result.success)
        write_video(episode.film, frames, self._specs.specs.policy_rate)
        return replace(result, video=episode.film.name)


def _attribute(env: Any, name: str, default: Any) -> Any:
    """Of the environment itself, below Gymnasium's wrappers."""
    return getattr(getattr(env, "unwrapped", env), name, default)


def _timings(env: Any) -> tuple[float, float]:
    """Cumulative seconds in physics and rendering, where the environment counts them."""
    timings = _attribute(env, "timings", {})
    return timings.get("physics", 0.0), timings.get("render", 0.0)

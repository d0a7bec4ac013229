"""What an evaluation leaves behind: one record per episode and a summary with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.statistics import Interval, mean_interval, wilson_interval


@dataclass(frozen=True)
class EpisodeResult:
    """One rollout.

    Args:
        success: by the environment's own predicate.
        total_reward, max_reward: of the environment's reward.
        steps: policy steps taken; seconds: simulated.
        maxima: largest value of every float in ``info`` (Push-T's coverage, for one).
        start: the first observation, for plots of where episodes fail.
        unstable: physics broke down; counted as a failure.
        conditions: what was varied on purpose in this episode (randomisation, delays).
        action_hash: SHA-256 of every action executed.
    """

    seed: int
    success: bool
    total_reward: float
    max_reward: float
    steps: int
    seconds: float
    maxima: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    unstable: bool = False
    conditions: Mapping[str, Any] = field(default_factory=dict)
    action_hash: str = ""


@dataclass(frozen=True)
class Summary:
    """Rates with 95 % intervals; never a bare percentage."""

    n_episodes: int
    successes: int
    success_rate: float
    success_interval: Interval
    max_reward: float
    max_reward_interval: Interval
    seconds_to_success: float | None
    maxima: Mapping[str, tuple[float, Interval]]


def summarise(episodes: list[EpisodeResult]) -> Summary:
    """Wilson interval of the success rate; bootstrap intervals of means. ConfigError without episodes."""
    if not episodes:
        raise ConfigError("there are no episodes to summarise")
    successes = sum(e.success for e in episodes)
    rewards = np.array([e.max_reward for e in episodes])
    times = [e.seconds for e in episodes if e.success]
    maxima = {}
    for key in sorted({key for e in episodes for key in e.maxima}):
        values = np.array([e.maxima[key] for e in episodes if key in e.maxima])
        maxima[key] = (float(values.mean()), mean_interval(values))
    return Summary(
        n_episodes=len(episodes),
        successes=successes,
        success_rate=successes / len(episodes),
        success_interval=wilson_interval(successes, len(episodes)),
        max_reward=float(rewards.mean()),
        max_reward_interval=mean_interval(rewards),
        seconds_to_success=float(np.mean(times)) if times else None,
        maxima=maxima,
    )

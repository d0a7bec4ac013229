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
        restarts: how often the episode began again because its process had died.
        video: file name of its film, if it was filmed.
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
    restarts: int = 0
    video: str = ""


@dataclass(frozen=True)
class Summary:
    """Rates and means with 95 % intervals; never a bare percentage.

    Args:
        mean_return: of the total reward of an episode; max_reward: mean of its largest reward.
        seconds_to_success: mean over the episodes that succeeded; None when none did.
        maxima: mean of the largest value of every float in ``info``.
        unstable: episodes that physics ended; they count as failures.
        restarts: how often an episode began again because its process had died.
    """

    n_episodes: int
    successes: int
    success_rate: float
    success_interval: Interval
    mean_return: float
    mean_return_interval: Interval
    max_reward: float
    max_reward_interval: Interval
    seconds_to_success: float | None
    seconds_to_success_interval: Interval | None
    maxima: Mapping[str, tuple[float, Interval]]
    unstable: int
    restarts: int


def summarise(episodes: list[EpisodeResult]) -> Summary:
    """Wilson interval of the success rate; bootstrap intervals of means. ConfigError without episodes."""
    if not episodes:
        raise ConfigError("there are no episodes to summarise")
    successes = sum(e.success for e in episodes)
    returns = np.array([e.total_reward for e in episodes])
    rewards = np.array([e.max_reward for e in episodes])
    times = np.array([e.seconds for e in episodes if e.success])
    maxima = {}
    for key in sorted({key for e in episodes for key in e.maxima}):
        values = np.array([e.maxima[key] for e in episodes if key in e.maxima])
        maxima[key] = (float(values.mean()), mean_interval(values))
    return Summary(
        n_episodes=len(episodes),
        successes=successes,
        success_rate=successes / len(episodes),
        success_interval=wilson_interval(successes, len(episodes)),
        mean_return=float(returns.mean()),
        mean_return_interval=mean_interval(returns),
        max_reward=float(rewards.mean()),
        max_reward_interval=mean_interval(rewards),
        seconds_to_success=float(times.mean()) if len(times) else None,
        seconds_to_success_interval=mean_interval(times) if len(times) else None,
        maxima=maxima,
        unstable=sum(e.unstable for e in episodes),
        restarts=sum(e.restarts for e in episodes),
    )

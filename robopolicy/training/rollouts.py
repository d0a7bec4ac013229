"""Success in simulation while training: evaluation's own rollouts, of the averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from robopolicy.core.policy import Policy
from robopolicy.evaluation.campaign import Campaign, check_environment
from robopolicy.evaluation.environments import EnvRecipe, parse_options
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.rollout import evaluate
from robopolicy.policies._saved import load_policy
from robopolicy.training.config import RolloutConfig

SUCCESS = "rollout_success"


def check_rollouts(config: RolloutConfig, policy: Policy) -> None:
    """Make and reset every environment once: a wrong name must fail before the training, not hours later."""
    for env in config.env:
        check_environment(
            Campaign(env, (config.seed,), parse_options(config.option, "rollouts.option")), policy
        )


def rollout(
    folder: Path,
    config: RolloutConfig,
    *,
    device: str,
    on_episode: Callable[[EpisodeResult], None],
) -> dict[str, float]:
    """Success rates of a saved policy.

    Args:
        folder: of the policy.
        on_episode: called after each one; what it raises ends the rollouts.
    Returns:
        ``rollout_success`` over all environments, and of each where there are several.
    """
    policy = load_policy(folder, device)
    seeds = range(config.seed, config.seed + config.episodes)
    rates = {}
    for env in config.env:
        results = evaluate(
            policy,
            EnvRecipe(env, parse_options(config.option, "rollouts.option")),
            seeds,
            executor="processes" if config.workers else "inline",
            workers=max(1, config.workers),
            on_episode=on_episode,
            console=Console(quiet=True),
        )
        rates[env] = sum(result.success for result in results) / len(results)
    mean = sum(rates.values()) / len(rates)
    each = {f"{SUCCESS}.{env}": rate for env, rate in rates.items()} if len(rates) > 1 else {}
    return {SUCCESS: mean, **each}

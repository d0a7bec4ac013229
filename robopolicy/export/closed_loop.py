"""What an export changes where it counts: success in simulation, on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from robopolicy.core.errors import ConfigError
from robopolicy.core.policy import Policy
from robopolicy.evaluation.campaign import available_cores
from robopolicy.evaluation.comparison import Report, compare
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.rollout import evaluate


@dataclass(frozen=True)
class ClosedLoop:
    """Where to compare.

    Args:
        env: a task name, or a Gymnasium id; empty compares nowhere.
        episodes: of each policy.
        seed: first seed of the environment; the others follow.
        options: of the environment's constructor.
        executor: where environments live, see ``evaluation.rollout.evaluate``.
    """

    env: str = ""
    episodes: int = 50
    seed: int = 1_000_000
    options: Mapping[str, Any] = field(default_factory=dict)
    executor: str = "processes"

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes must be >= 1, got {self.episodes}")


def compare_in_simulation(
    torch_policy: Policy, bundle_policy: Policy, where: ClosedLoop, console: Console | None = None
) -> Report:
    """Both on the same seeds and noise, by the exact paired test; the torch policy is the baseline."""
    seeds = range(where.seed, where.seed + where.episodes)
    results = {
        name: evaluate(
            policy,
            EnvRecipe(where.env, where.options),
            seeds,
            executor=where.executor,
            workers=available_cores(),
            console=console,
        )
        for name, policy in (("torch", torch_policy), ("bundle", bundle_policy))
    }
    return compare(results)


def as_measured(report: Report) -> dict[str, float]:
    """The numbers of a comparison, for a manifest."""
    (torch_row, bundle_row), comparison = report.policies, report.comparisons[0]
    low, high = comparison.difference_interval
    return {
        "success.episodes": float(torch_row.count),
        "success.torch": torch_row.rate,
        "success.bundle": bundle_row.rate,
        "success.difference": comparison.difference,
        "success.difference_low": low,
        "success.difference_high": high,
        "success.gains": float(comparison.gains or 0),
        "success.losses": float(comparison.losses or 0),
        "success.p_value": comparison.p_value,
    }

"""Policies compared with a baseline: on the same seeds where possible, with a test and an effect size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.statistics import (
    Interval,
    check_pairs,
    holm,
    mean_interval,
    odds_ratio_interval,
    paired_difference_interval,
    unpaired_difference_interval,
    wilson_interval,
)

MCNEMAR = "exact McNemar"
BOSCHLOO = "Boschloo (unpaired)"
#: The baseline first; results of each policy in any order.
Results = Mapping[str, Sequence[EpisodeResult]]


@dataclass(frozen=True)
class PolicyRow:
    """One policy alone: successes of count, with the Wilson interval of the rate."""

    name: str
    successes: int
    count: int
    rate: float
    interval: Interval


@dataclass(frozen=True)
class MeanDifference:
    """Mean of other - baseline over pairs, with its bootstrap interval (BCa)."""

    pairs: int
    difference: float
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """One policy against the baseline.

    Args:
        test: what gave ``p_value``.
        difference: success rate of other - baseline.
        gains, losses: pairs in which only the other, or only the baseline, succeeds; None when unpaired.
        odds_ratio: gains / losses, NaN without discordant pairs; its interval is exact.
        p_value: two-sided; p_adjusted: with Holm's correction over all comparisons of the report.
        means: ``total_reward`` over all pairs, ``seconds`` over those in which both succeed.
        decision: of a sequential test; empty otherwise.
    """

    baseline: str
    other: str
    test: str
    difference: float
    difference_interval: Interval
    p_value: float
    p_adjusted: float
    pairs: int | None = None
    gains: int | None = None
    losses: int | None = None
    odds_ratio: float | None = None
    odds_ratio_interval: Interval | None = None
    means: Mapping[str, MeanDifference] = field(default_factory=dict)
    decision: str = ""


@dataclass(frozen=True)
class Report:
    """All policies, each but the first compared with the first.

    Args:
        cochran_p: of Cochran's Q, all rates equal; None for two policies or without pairs.
        confidence: of every interval, each for itself.
    """

    policies: tuple[PolicyRow, ...]
    comparisons: tuple[Comparison, ...]
    cochran_p: float | None
    confidence: float


def compare(results: Results, *, paired: bool = True, confidence: float = 0.95) -> Report:
    """Compare every policy with the first.

    Args:
        results: at least two policies.
        paired: same seeds, exact McNemar test (McNemar 1947) and Tango's interval. Otherwise, for real robots
            whose starts cannot be repeated, Boschloo's exact test (1970) and Newcombe's interval.
    Raises:
        ConfigError: fewer than two policies, no episodes, a seed twice, or different seeds (listed).
    """
    if len(results) < 2:
        raise ConfigError(f"a comparison needs at least two policies, got {list(results)}")
    rows = [policy_row(name, episodes, confidence) for name, episodes in results.items()]
    baseline, *others = results
    if paired:
        check_same_seeds(results)
        found = [compare_pair(results, baseline, other, confidence) for other in others]
    else:
        found = [_compare_unpaired(rows[0], row, confidence) for row in rows[1:]]
    matrix = outcome_matrix(results) if paired and others[1:] else None
    return Report(
        policies=tuple(rows),
        comparisons=adjust(found),
        cochran_p=None if matrix is None else cochran_q(matrix),
        confidence=confidence,
    )


def policy_row(name: str, episodes: Sequence[EpisodeResult], confidence: float = 0.95) -> PolicyRow:
    """One policy's successes; ConfigError without episodes or with a seed twice."""
    if not episodes:
        raise ConfigError(f"{name!r} has no episodes")
    seeds = [episode.seed for episode in episodes]
    if len(set(seeds)) < len(seeds):
        twice = sorted(seed for seed in set(seeds) if seeds.count(seed) > 1)
        raise ConfigError(f"{name!r} has more than one episode of the seeds {_some(twice)}")
    successes = sum(episode.success for episode in episodes)
    interval = wilson_interval(successes, len(episodes), confidence)
    return PolicyRow(name, successes, len(episodes), successes / len(episodes), interval)


def check_same_seeds(results: Results) -> None:
    """ConfigError that lists the seeds which one policy has and the baseline lacks, or the reverse."""
    (baseline, first), *others = results.items()
    expected = {episode.seed for episode in first}
    for name, episodes in others:
        seeds = {episode.seed for episode in episodes}
        if seeds != expected:
            raise ConfigError(
                f"{baseline!r} and {name!r} did not run on the same seeds: only {baseline!r} has "
                f"{_some(expected - seeds)}, only {name!r} has {_some(seeds - expected)}; evaluate both "
                "with the same seeds, or compare them unpaired"
            )


def compare_pair(results: Results, baseline: str, other: str, confidence: float = 0.95) -> Comparison:
    """Two policies on the same seeds; ``p_adjusted`` is not yet adjusted."""
    pairs = pair_up(baseline=results[baseline], other=results[other])
    gains = sum(o.success and not b.success for b, o in pairs)
    losses = sum(b.success and not o.success for b, o in pairs)
    p_value = mcnemar(gains=gains, losses=losses)
    interval = paired_difference_interval(gains=gains, losses=losses, count=len(pairs), confidence=confidence)
    both = [(b.seconds, o.seconds) for b, o in pairs if b.success and o.success]
    means = {
        "total_reward": mean_difference([(b.total_reward, o.total_reward) for b, o in pairs], confidence),
        "seconds": mean_difference(both, confidence),
    }
    return Comparison(
        baseline=baseline,
        other=other,
        test=MCNEMAR,
        difference=(gains - losses) / len(pairs),
        difference_interval=interval,
        p_value=p_value,
        p_adjusted=p_value,
        pairs=len(pairs),
        gains=gains,
        losses=losses,
        odds_ratio=odds_ratio(gains=gains, losses=losses),
        odds_ratio_interval=odds_ratio_interval(gains=gains, losses=losses, confidence=confidence),
        means={name: mean for name, mean in means.items() if mean is not None},
    )


def pair_up(
    *, baseline: Iterable[EpisodeResult], other: Iterable[EpisodeResult]
) -> list[tuple[EpisodeResult, EpisodeResult]]:
    """(baseline, other) of each seed that both have, in the baseline's order."""
    by_seed = {episode.seed: episode for episode in other}
    return [(episode, by_seed[episode.seed]) for episode in baseline if episode.seed in by_seed]


def mcnemar(*, gains: int, losses: int) -> float:
    """Exact two-sided p-value: under equal rates each discordant pair is a fair coin (McNemar 1947)."""
    check_pairs(gains=gains, losses=losses, count=max(1, gains + losses))
    if gains + losses == 0:
        return 1.0
    return float(stats.binomtest(gains, gains + losses, 0.5).pvalue)


def odds_ratio(*, gains: int, losses: int) -> float:
    """gains / losses: infinite without losses, NaN without either."""
    if losses:
        return gains / losses
    return math.inf if gains else math.nan


def boschloo(*, baseline: tuple[int, int], other: tuple[int, int]) -> float:
    """Exact unconditional two-sided p-value of equal rates, each side (successes, count) (Boschloo 1970)."""
    table = [[other[0], baseline[0]], [other[1] - other[0], baseline[1] - baseline[0]]]
    if not all(map(any, table)):  # all succeed, or none: there is nothing to tell apart
        return 1.0
    return float(stats.boschloo_exact(table).pvalue)


def cochran_q(outcomes: NDArray[np.bool_]) -> float:
    """p-value that all policies succeed equally often (Cochran 1950; chi-squared, rough below 25 seeds).

    Args:
        outcomes: (seeds, policies).
    """
    x = np.asarray(outcomes, dtype=np.int64)
    policies, per_policy, per_seed = x.shape[1], x.sum(axis=0), x.sum(axis=1)
    below = policies * x.sum() - (per_seed**2).sum()
    if below == 0:  # every seed has one outcome, whatever the policy
        return 1.0
    q = (policies - 1) * (policies * (per_policy**2).sum() - x.sum() ** 2) / below
    return float(stats.chi2.sf(q, policies - 1))


def mean_difference(pairs: Sequence[tuple[float, float]], confidence: float = 0.95) -> MeanDifference | None:
    """Of (baseline, other) pairs, but not those with NaN (unstable physics); None if none is left."""
    values = np.array([other - baseline for baseline, other in pairs], dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return MeanDifference(len(values), float(values.mean()), mean_interval(values, confidence))


def outcome_matrix(results: Results) -> NDArray[np.bool_]:
    """(seeds, policies), seeds ascending; every policy must have the same ones."""
    columns = [[e.success for e in sorted(episodes, key=lambda e: e.seed)] for episodes in results.values()]
    return np.array(columns, dtype=np.bool_).T


def adjust(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """With ``p_adjusted`` by Holm over all of them."""
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return tuple(dataclasses.replace(c, p_adjusted=p) for c, p in zip(comparisons, adjusted))


def _compare_unpaired(baseline: PolicyRow, other: PolicyRow, confidence: float) -> Comparison:
    first, second = (baseline.successes, baseline.count), (other.successes, other.count)
    p_value = boschloo(baseline=first, other=second)
    return Comparison(
        baseline=baseline.name,
        other=other.name,
        test=BOSCHLOO,
        difference=other.rate - baseline.rate,
        difference_interval=unpaired_difference_interval(baseline=first, other=second, confidence=confidence),
        p_value=p_value,
        p_adjusted=p_value,
    )


def _some(seeds: Iterable[int], most: int = 8) -> str:
    """The first few, and how many more."""
    listed = sorted(seeds)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{listed[:most]}{more}"

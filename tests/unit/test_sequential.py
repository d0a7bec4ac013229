"""Stopping early: errors stay below alpha however often one looks, and episodes are saved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation import sequential
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.sequential import GRID, PairedSequence, log_e_value
from robopolicy.evaluation.sequential_run import compare_sequentially

LIMIT = -math.log(0.05)


def walks(rng, first: float, second: float, runs: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Running counts of gains and losses of two independent policies, each (runs, length)."""
    succeeds = rng.random((runs, length, 2)) < (first, second)
    gains, losses = succeeds[..., 1] & ~succeeds[..., 0], succeeds[..., 0] & ~succeeds[..., 1]
    return gains.cumsum(axis=1), losses.cumsum(axis=1)


def mcnemar_p(gains: np.ndarray, losses: np.ndarray) -> np.ndarray:
    return np.minimum(1, 2 * stats.binom.cdf(np.minimum(gains, losses), gains + losses, 0.5))


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_looking_after_every_episode_raises_no_more_false_alarms_than_promised(rng, rate):
    gains, losses = walks(rng, rate, rate, runs=4000, length=400)
    assert (log_e_value(gains, losses) >= LIMIT).any(axis=1).mean() <= 0.05
    peeking = (mcnemar_p(gains, losses) <= 0.05).any(axis=1).mean()
    assert peeking > 0.15  # the usual test, looked at as often


def test_the_expected_wealth_of_a_fair_gamble_stays_one():
    """Exactly, over all sequences of 12 discordant pairs: a martingale that starts at 1."""
    gains = np.arange(13)
    assert np.sum(stats.binom.pmf(gains, 12, 0.5) * np.exp(log_e_value(gains, 12 - gains))) == pytest.approx(
        1
    )


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.5, 0.8), (0.95, 0.9), (0.1, 0.9)])
def test_the_confidence_sequence_never_leaves_the_truth_more_often_than_promised(rng, first, second):
    """Wealth against the true difference, at every pair of every run."""
    gains, losses = walks(rng, first, second, runs=300, length=150)
    ties = np.arange(1, 151) - gains - losses
    place = int(np.argmin(np.abs(GRID - (second - first)))) - 1  # the bets are on the inner differences
    bets = {x: factors[place] for x, factors in sequential.LOG_FACTORS.items()}
    wealth = logsumexp(
        gains[..., None] * bets[1]
        + losses[..., None] * bets[-1]
        + ties[..., None] * bets[0]
        + np.log(sequential.WEIGHTS / 2),
        axis=-1,
    )
    assert (wealth >= LIMIT).any(axis=1).mean() <= 0.05


def test_episodes_are_saved_at_the_same_power(rng):
    """From 0.5 to 0.8, both tests with power 0.95."""
    gains, losses = walks(rng, 0.5, 0.8, runs=2000, length=300)
    crossed = log_e_value(gains, losses) >= LIMIT
    stop = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, 301)
    cap = int(np.quantile(stop, 0.95, method="higher"))
    power = (mcnemar_p(gains, losses) <= 0.05).mean(axis=0)
    fixed = 300 - int((power[::-1] >= 0.95).cumprod().sum()) + 1
    mean = np.minimum(stop, cap).mean()
    assert 60 < fixed < 90 and mean < 0.72 * fixed, (fixed, cap, mean)


def feed(pairs, **options) -> PairedSequence:
    sequence = PairedSequence(**options)
    for x in pairs:
        sequence.add(baseline=x < 0 or x == 2, other=x > 0)  # 2: both succeed
    return sequence


@given(st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=40))
def test_the_interval_narrows_holds_the_estimate_and_excludes_0_just_when_the_test_rejects(pairs):
    sequence, before, largest = PairedSequence(), (-1.0, 1.0), 1.0
    for x in pairs:
        sequence.add(baseline=x in (-1, 2), other=x in (1, 2))
        found = sequence.evidence
        g, b = found.gains, found.losses
        assert found.e_value == pytest.approx(2 ** (g + b) * stats_beta(g, b))
        largest = max(largest, found.e_value)
        assert found.p_value == pytest.approx(1 / largest)
        low, high = found.interval
        assert before[0] <= low <= high <= before[1]
        assert (low >= 0 or high <= 0) == (found.decision != "undecided")
        before = found.interval
    assert found.difference == (pairs.count(1) - pairs.count(-1)) / len(pairs)


def stats_beta(gains: int, losses: int) -> float:
    return math.factorial(gains) * math.factorial(losses) / math.factorial(gains + losses + 1)


def test_wealth_is_convex_in_the_difference(rng):
    """What makes the sets intervals: second differences are never negative."""
    sequence = feed(rng.choice([-1, 0, 1], size=60, p=[0.2, 0.4, 0.4]))
    wealth = np.exp(logsumexp(sequence._log_wealth, axis=1))
    inner = wealth[40:-40]  # the ends overflow
    assert (np.diff(inner, 2) >= -1e-9 * inner[1:-1]).all()


def test_all_gains_keep_a_difference_of_one_possible():
    sequence = feed([1] * 30)
    low, high = sequence.evidence.interval
    assert high == 1 and low > 0.5 and sequence.evidence.decision == "better"
    sequence.add(baseline=True, other=True)
    assert sequence.evidence.interval[1] <= 1 and feed([-1] * 8).evidence.decision == "worse"


def test_a_decision_stays_and_so_does_the_smallest_p():
    after_eight = feed([1] * 8).evidence
    found = feed([1] * 8 + [-1] * 8).evidence
    assert found.decision == "better" and found.e_value < 1
    assert found.p_value == after_eight.p_value == pytest.approx(9 / 2**8)


def test_a_margin_stops_for_policies_that_are_alike():
    alike = [2] * 150
    assert feed(alike).evidence.decision == "undecided"
    found = feed(alike, margin=0.1).evidence
    assert found.decision == "alike" and -0.1 <= found.interval[0] <= found.interval[1] <= 0.1


@pytest.mark.parametrize(("alpha", "margin"), [(0, 0), (1, 0), (0.05, 1), (0.05, -0.1)])
def test_impossible_levels_are_refused(alpha, margin):
    with pytest.raises(ConfigError, match="must lie in"):
        PairedSequence(alpha=alpha, margin=margin)
    with pytest.raises(ConfigError, match="no pairs yet"):
        PairedSequence().evidence  # noqa: B018


class Runner:
    """Policies that succeed at fixed rates; remembers who ran how many episodes."""

    def __init__(self, **rates: float) -> None:
        self.rates = rates
        self.ran = dict.fromkeys(rates, 0)

    def __call__(self, name, seeds):
        self.ran[name] += len(seeds)
        easy = {seed: np.random.default_rng(seed).random() for seed in seeds}
        return [EpisodeResult(s, bool(easy[s] < self.rates[name]), 0.0, 0.0, 5, 1.0) for s in seeds]


def test_a_run_stops_when_all_are_told_apart():
    runner, told = Runner(base=0.4, good=0.9, same=0.4, bad=0.05), []
    found = compare_sequentially(list(runner.rates), range(200), runner, batch=10, on_batch=told.append)
    decisions = {c.other: c.decision for c in found.report.comparisons}
    assert decisions == {"good": "better", "same": "undecided", "bad": "worse"}
    assert runner.ran["base"] == runner.ran["same"] == 200  # identical outcomes are never told apart
    assert runner.ran["good"] < 60 and runner.ran["bad"] < 60 and runner.ran["good"] % 10 == 0
    assert {name: len(e) for name, e in found.results.items()} == runner.ran
    assert len(told) == 20 and told[-1]["same"].pairs == 200
    good = found.report.comparisons[0]
    assert good.test == "betting e-process (anytime-valid)" and good.pairs == runner.ran["good"]
    assert good.p_value <= good.p_adjusted <= 0.05 and good.difference_interval[0] > 0
    assert good.odds_ratio_interval is None and good.means == {}
    assert [p.count for p in found.report.policies] == list(runner.ran.values())


def test_two_policies_stop_early_and_the_last_batch_is_short():
    runner = Runner(a=0.1, b=0.9)
    compare_sequentially(["a", "b"], range(100), runner, batch=7)
    assert runner.ran["a"] == runner.ran["b"] < 30
    runner = Runner(a=0.5, b=0.5)
    compare_sequentially(["a", "b"], range(23), runner, batch=10)
    assert runner.ran == {"a": 23, "b": 23}


def test_holm_settles_what_the_stopping_rule_left_open():
    """Two comparisons: one decided early, the other's p between 0.025 and 0.05."""
    won = {"base": [0] * 10, "good": [1] * 10, "fair": [1] * 8 + [0, 0]}

    def run(name, seeds):
        return [EpisodeResult(s, bool(won[name][s]), 0.0, 0.0, 5, 1.0) for s in seeds]

    found = compare_sequentially(list(won), range(10), run, batch=10)
    fair = found.report.comparisons[1]
    assert fair.p_value == pytest.approx(9 / 2**8) and fair.p_value > 0.05 / 2
    assert fair.p_adjusted == fair.p_value and fair.decision == "better"


@pytest.mark.parametrize(
    ("names", "seeds", "batch", "message"),
    [
        (["a"], [1], 1, "at least two policies"),
        (["a", "a"], [1], 1, "of different names"),
        (["a", "b"], [], 1, "got 0 seeds"),
        (["a", "b"], [1, 1], 1, "need different seeds"),
        (["a", "b"], [1], 0, "batch 0"),
    ],
)
def test_impossible_runs_are_refused(names, seeds, batch, message):
    with pytest.raises(ConfigError, match=message):
        compare_sequentially(names, seeds, Runner(a=0.5, b=0.5), batch=batch)

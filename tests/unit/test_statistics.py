"""Intervals against published values and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.results import EpisodeResult, summarise
from robopolicy.evaluation.statistics import mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_newcombes_table(successes, count, low, high):
    found = wilson_interval(successes, count)
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("count", [1, 2, 10, 50, 1000])
def test_wilson_is_the_closed_form(count):
    z = 1.959963984540054
    for successes in {0, 1, count // 2, count}:
        rate = successes / count
        centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
        half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count**2))
        low, high = wilson_interval(successes, count)
        assert low == pytest.approx(max(0, centre - half), abs=1e-9)
        assert high == pytest.approx(min(1, centre + half), abs=1e-9)
        assert 0 <= low <= rate <= high <= 1


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (-1, 5), (6, 5), (1, -1)])
def test_impossible_counts_are_refused_with_the_numbers(successes, count):
    with pytest.raises(ConfigError, match=f"got {successes} of {count}"):
        wilson_interval(successes, count)


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = sum(
        low <= 1.0 <= high for low, high in (mean_interval(rng.exponential(size=40)) for _ in range(60))
    )
    assert 50 <= hits <= 60  # 95 % of 60 is 57


def test_the_bootstrap_repeats_itself_and_knows_its_edges():
    values = np.random.default_rng(1).normal(size=20)
    assert mean_interval(values) == mean_interval(values)
    low, high = mean_interval(values)
    assert low < values.mean() < high
    assert mean_interval(np.array([3.0])) == (3.0, 3.0)
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25)
    with pytest.raises(ConfigError, match="no values"):
        mean_interval(np.array([]))


def result(seed: int, success: bool, reward: float, **maxima: float) -> EpisodeResult:
    return EpisodeResult(seed, success, reward, reward, 10, 1.0 + seed, maxima)


def test_a_summary_counts_and_never_gives_a_bare_rate():
    summary = summarise(
        [result(0, True, 1.0, cover=0.5), result(1, False, 0.5), result(2, True, 0.75, cover=1.0)]
    )
    assert (summary.n_episodes, summary.successes) == (3, 2)
    assert summary.success_rate == pytest.approx(2 / 3)
    assert summary.success_interval == wilson_interval(2, 3)
    assert summary.max_reward == pytest.approx(0.75)
    assert summary.seconds_to_success == pytest.approx(2.0)
    assert summary.maxima["cover"][0] == pytest.approx(0.75)


def test_without_a_success_there_is_no_time_to_success():
    assert summarise([result(0, False, 0.0)]).seconds_to_success is None


def test_a_summary_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no episodes"):
        summarise([])

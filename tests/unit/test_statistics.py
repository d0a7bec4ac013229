"""Intervals against published values and against what they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation.results import EpisodeResult, summarise
from robopolicy.evaluation.statistics import (
    holm,
    mean_interval,
    odds_ratio_interval,
    paired_difference_interval,
    unpaired_difference_interval,
    wilson_interval,
)


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


@pytest.mark.parametrize(
    ("gains", "losses", "count", "confidence", "low", "high"),
    [
        (7, 1, 21, 0.95, 0.026, 0.517),  # airway hyper-responsiveness (Bentur et al. 2009), as in R's ratesci
        (28, 25, 618, 0.90, -0.0148, 0.0247),  # R's PropCIs::scoreci.mp(25, 28, 618, 0.90)
    ],
)
def test_the_paired_interval_is_what_others_compute(gains, losses, count, confidence, low, high):
    pairs = {"gains": gains, "losses": losses, "count": count, "confidence": confidence}
    found = paired_difference_interval(**pairs, correction=0)
    assert found == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
    wider = paired_difference_interval(**pairs)
    assert wider[0] < found[0] < found[1] < wider[1]


@pytest.mark.parametrize("count", [1, 7, 30])
def test_the_paired_interval_knows_its_edges(count):
    z2 = stats.norm.isf(0.025) ** 2
    low, high = paired_difference_interval(gains=0, losses=0, count=count, correction=0)
    closed = pytest.approx(z2 / (count + z2))  # Tango 1998: without discordant pairs
    assert high == closed and -low == closed
    for gains, losses in itertools.product(range(count + 1), repeat=2):
        if gains + losses <= count:
            low, high = paired_difference_interval(gains=gains, losses=losses, count=count)
            mirrored = paired_difference_interval(gains=losses, losses=gains, count=count)
            assert -1 <= low <= (gains - losses) / count <= high <= 1
            assert mirrored == (pytest.approx(-high, abs=1e-9), pytest.approx(-low, abs=1e-9))


@pytest.mark.parametrize("count", [12, 40])
def test_the_paired_interval_covers_the_difference_as_often_as_it_says(count):
    """Exactly, over all outcomes; three correlations, as common starts cause them."""
    tables = [(g, b) for g in range(count + 1) for b in range(count + 1 - g)]
    for correction, promised in ((0.5, 0.95), (0, 0.925)):
        bounds = np.array(
            [
                paired_difference_interval(gains=g, losses=b, count=count, correction=correction)
                for g, b in tables
            ]
        )
        coverage = []
        for first, second, phi in itertools.product((0.1, 0.5, 0.7, 0.95), (0.2, 0.5, 0.9), (0, 0.4, 0.8)):
            both = first * second + phi * math.sqrt(first * (1 - first) * second * (1 - second))
            both = min(both, first, second)
            cells = [second - both, first - both, 1 - first - second + 2 * both]
            rest = [(g, b, count - g - b) for g, b in tables]
            chance = stats.multinomial.pmf(rest, count, cells)
            hit = (bounds[:, 0] <= second - first + 1e-9) & (second - first - 1e-9 <= bounds[:, 1])
            coverage.append(chance[hit].sum())
        assert min(coverage) >= promised
        if not correction:
            assert min(coverage) < 0.95  # what the correction is for


@pytest.mark.parametrize(("gains", "losses", "count"), [(-1, 0, 5), (0, 0, 0), (3, 3, 5)])
def test_impossible_pairs_are_refused_with_the_numbers(gains, losses, count):
    with pytest.raises(ConfigError, match=rf"got {gains} \+ {losses} of {count}"):
        paired_difference_interval(gains=gains, losses=losses, count=count)


def test_the_odds_interval_agrees_with_mcnemars_test():
    assert odds_ratio_interval(gains=0, losses=0) == (0, math.inf)
    low, high = odds_ratio_interval(gains=6, losses=0)
    assert low == pytest.approx(0.025 ** (1 / 6) / (1 - 0.025 ** (1 / 6))) and high == math.inf
    for gains, losses in itertools.product(range(12), repeat=2):
        if gains + losses:
            low, high = odds_ratio_interval(gains=gains, losses=losses)
            rejected = stats.binomtest(gains, gains + losses).pvalue <= 0.05
            assert (not low <= 1 <= high) == rejected


@pytest.mark.parametrize(
    ("other", "baseline", "low", "high"),
    [  # Newcombe 1998, "Interval estimation for the difference", table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0000),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_the_unpaired_interval_matches_newcombes_table(other, baseline, low, high):
    found = unpaired_difference_interval(baseline=baseline, other=other)
    assert found == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_holm_in_the_order_given():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_holm_keeps_the_family_wise_error(rng):
    """Three true nulls beside one false: any false claim in at most 5 % of families."""
    runs = 4000
    p = rng.random((runs, 4))
    p[:, 0] *= 1e-4
    false = [min(holm(row.tolist())[1:]) <= 0.05 for row in p]
    assert np.mean(false) <= 0.06
    assert (p[:, 1:].min(axis=1) <= 0.05).mean() > 0.1  # what it protects from

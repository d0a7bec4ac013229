"""Policies on the same seeds: the right test, the right effect, and no comparison of different starts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from robopolicy.core.errors import ConfigError
from robopolicy.evaluation import comparison
from robopolicy.evaluation.comparison import boschloo, cochran_q, compare, mcnemar, odds_ratio
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.statistics import paired_difference_interval


def episodes(outcomes: list[int], first: int = 0, reward: float = 0.0) -> list[EpisodeResult]:
    """One per outcome; rewards and times grow with the seed."""
    return [
        EpisodeResult(first + i, bool(won), reward + i, 1.0, 10, 2.0 + 0.1 * i + reward)
        for i, won in enumerate(outcomes)
    ]


BASE = [1] * 10 + [0] * 20
#       9 both, 1 loss, 11 gains, 9 neither
BETTER = [1] * 9 + [0] + [1] * 11 + [0] * 9


def test_two_policies_on_the_same_seeds():
    report = compare({"base": episodes(BASE), "new": list(reversed(episodes(BETTER, reward=0.5)))})
    (found,) = report.comparisons
    assert [(p.name, p.successes, p.count) for p in report.policies] == [("base", 10, 30), ("new", 20, 30)]
    assert (found.baseline, found.other, found.test) == ("base", "new", "exact McNemar")
    assert (found.pairs, found.gains, found.losses, found.odds_ratio) == (30, 11, 1, 11.0)
    assert found.difference == pytest.approx(1 / 3)
    assert found.difference_interval == paired_difference_interval(gains=11, losses=1, count=30)
    assert found.p_value == found.p_adjusted == pytest.approx(2 * (1 + 12) / 2**12)
    assert found.means["total_reward"].difference == pytest.approx(0.5)
    assert found.means["total_reward"].pairs == 30
    assert found.means["seconds"].pairs == 9 and found.means["seconds"].difference == pytest.approx(0.5)
    assert report.cochran_p is None


def test_pairing_finds_what_two_separate_samples_do_not():
    """The same counts: 10 against 20 of 30. Paired it is one loss against eleven gains."""
    results = {"base": episodes(BASE), "new": episodes(BETTER)}
    paired, unpaired = (compare(results, paired=p).comparisons[0] for p in (True, False))
    assert paired.p_value < 0.01 < unpaired.p_value
    assert unpaired.test == "Boschloo (unpaired)" and unpaired.gains is None
    assert unpaired.difference == paired.difference
    (low, high), (wide_low, wide_high) = paired.difference_interval, unpaired.difference_interval
    assert wide_low < low and high - low < wide_high - wide_low


def test_differences_change_their_sign_with_the_order():
    one, two = episodes(BASE), episodes(BETTER, reward=1)
    there, back = (
        compare(dict(pair)).comparisons[0] for pair in ([("a", one), ("b", two)], [("b", two), ("a", one)])
    )
    assert back.difference == -there.difference and back.p_value == there.p_value
    assert back.means["total_reward"].difference == -there.means["total_reward"].difference
    assert back.difference_interval == pytest.approx([-v for v in reversed(there.difference_interval)])


def test_other_seeds_are_refused_and_listed():
    one, two = episodes([1] * 5), episodes([1] * 20, first=3)
    with pytest.raises(ConfigError) as caught:
        compare({"a": one, "b": two})
    assert "only 'a' has [0, 1, 2]" in str(caught.value)
    assert "only 'b' has [5, 6, 7, 8, 9, 10, 11, 12] and 10 more" in str(caught.value)
    assert compare({"a": one, "b": two}, paired=False).comparisons[0].p_value == 1


def test_what_is_no_comparison_is_refused():
    with pytest.raises(ConfigError, match=r"at least two policies, got \['a'\]"):
        compare({"a": episodes([1])})
    with pytest.raises(ConfigError, match="'b' has no episodes"):
        compare({"a": episodes([1]), "b": []})
    with pytest.raises(ConfigError, match=r"'b' has more than one episode of the seeds \[0\]"):
        compare({"a": episodes([1]), "b": episodes([1]) * 2})


@pytest.mark.parametrize(("gains", "losses", "p"), [(0, 0, 1), (5, 5, 1), (6, 0, 0.03125), (1, 9, 22 / 1024)])
def test_mcnemar_is_a_fair_coin(gains, losses, p):
    assert mcnemar(gains=gains, losses=losses) == pytest.approx(p)
    assert mcnemar(gains=losses, losses=gains) == pytest.approx(p)


def test_mcnemar_holds_its_level_and_so_does_boschloo(rng):
    """Equal policies with correlated outcomes, 30 seeds, looked at once."""
    easy = rng.random((2000, 30, 1))
    succeeds = np.where(rng.random((2000, 30, 1)) < 0.4, easy, rng.random((2000, 30, 2))) < 0.6
    gains = (succeeds[..., 1] & ~succeeds[..., 0]).sum(axis=1)
    losses = (succeeds[..., 0] & ~succeeds[..., 1]).sum(axis=1)
    assert np.mean([mcnemar(gains=int(g), losses=int(b)) <= 0.05 for g, b in zip(gains, losses)]) <= 0.055
    chance = stats.binom.pmf(range(7), 6, 0.6)
    wrong = [
        chance[a] * chance[b]
        for a in range(7)
        for b in range(7)
        if boschloo(baseline=(a, 6), other=(b, 6)) <= 0.05
    ]
    assert 0.01 < sum(wrong) <= 0.05  # exactly, over all tables of 6 against 6


def test_odds_without_losses_or_without_anything():
    assert odds_ratio(gains=3, losses=0) == math.inf and math.isnan(odds_ratio(gains=0, losses=0))


def test_boschloo_of_certain_outcomes_tells_nothing():
    assert boschloo(baseline=(5, 5), other=(9, 9)) == 1 and boschloo(baseline=(0, 5), other=(0, 9)) == 1
    assert boschloo(baseline=(0, 9), other=(9, 9)) < 0.001


def test_several_policies_are_corrected_together():
    worse = [0] * 30
    results = {
        "base": episodes(BASE),
        "new": episodes(BETTER),
        "same": episodes(BASE),
        "bad": episodes(worse),
    }
    report = compare(results)
    raw = {c.other: c.p_value for c in report.comparisons}
    assert list(raw) == ["new", "same", "bad"] and {c.baseline for c in report.comparisons} == {"base"}
    adjusted = {c.other: c.p_adjusted for c in report.comparisons}
    assert adjusted == {"bad": 3 * raw["bad"], "new": 2 * raw["new"], "same": 1.0}
    assert report.cochran_p < 1e-4


def test_cochrans_q_matches_its_textbook_example_and_its_edges():
    """Two policies: Q is McNemar's statistic without correction, (b - c)^2 / (b + c)."""
    matrix = np.array([[1, 0]] * 15 + [[0, 1]] * 5 + [[1, 1]] * 10, dtype=bool)
    assert cochran_q(matrix) == pytest.approx(stats.chi2.sf(10**2 / 20, 1))
    assert cochran_q(np.ones((4, 3), dtype=bool)) == 1


def test_broken_episodes_do_not_spoil_the_means():
    one, two = episodes([1, 1, 1, 0]), episodes([1, 1, 1, 0], reward=1)
    two[3] = EpisodeResult(3, False, math.nan, math.nan, 5, 0.5, unstable=True)
    (found,) = compare({"a": one, "b": two}).comparisons
    assert found.means["total_reward"].pairs == 3 and found.means["total_reward"].difference == 1
    (nothing,) = compare({"a": episodes([1]), "b": episodes([0])}).comparisons
    assert "seconds" not in nothing.means


def test_results_without_order_are_paired_by_seed():
    shuffled = episodes(BETTER)
    np.random.default_rng(0).shuffle(shuffled)
    assert compare({"a": episodes(BASE), "b": shuffled}) == compare(
        {"a": episodes(BASE), "b": episodes(BETTER)}
    )
    matrix = comparison.outcome_matrix({"a": episodes(BASE), "b": shuffled})
    assert matrix[:, 1].tolist() == [bool(v) for v in BETTER]

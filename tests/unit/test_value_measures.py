"""What is said of a critic, against slow obvious counts and cases whose answer is known."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from robopolicy.core.errors import ShapeError
from robopolicy.core.policy import keyed_rng
from robopolicy.training.value.measures import (
    Judged,
    calibration,
    calibration_error,
    chunk_accuracy,
    discrimination_by_progress,
    nearest_failures,
    ranking_accuracy,
    spread,
)

LENGTHS = (7, 12, 9, 12, 5, 12)
WON = (1, 0, 1, 0, 1, 0)


def make_judged(value=None, noise: float = 0.0, seed: int = 0) -> Judged:
    """Six episodes; a success is worth -(steps left), a failure -20; values are that, plus noise."""
    rng = keyed_rng(seed)
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    time = np.concatenate([np.arange(n) for n in LENGTHS])
    length, won = np.array(LENGTHS)[episode], np.array(WON, float)[episode]
    realised = np.where(won == 1, time - length, -20.0).astype(float)
    found = realised + noise * rng.normal(size=len(time)) if value is None else value(realised)
    return Judged(found, realised, episode, time, time / length, won, np.zeros_like(episode))


def slow_concordance(judged: Judged, outcomes: bool) -> tuple[float, int]:
    wins, pairs = 0.0, 0
    for i, j in itertools.combinations(range(len(judged.value)), 2):
        if judged.episode[i] == judged.episode[j] or judged.time[i] != judged.time[j]:
            continue
        if outcomes and judged.success[i] == judged.success[j]:
            continue
        gap = judged.realised[i] - judged.realised[j]
        if abs(gap) < 1e-9:
            continue
        pairs += 1
        wins += {1: 1.0, 0: 0.5, -1: 0.0}[int(np.sign(gap) * np.sign(judged.value[i] - judged.value[j]))]
    return wins / pairs, pairs


@pytest.mark.parametrize("outcomes", [False, True])
@pytest.mark.parametrize("noise", [0.0, 3.0, 30.0])
def test_ranking_accuracy_is_the_share_of_pairs_in_order(noise, outcomes):
    judged = make_judged(noise=noise)
    found = ranking_accuracy(judged, keyed_rng(1), outcomes=outcomes)
    share, pairs = slow_concordance(judged, outcomes)
    assert found.value == pytest.approx(share) and found.pairs == pairs
    assert 0 <= found.interval[0] <= found.value <= found.interval[1] <= 1
    assert found == ranking_accuracy(judged, keyed_rng(1), outcomes=outcomes)


def test_a_perfect_critic_a_reversed_one_and_one_that_knows_only_the_time():
    assert ranking_accuracy(make_judged(), keyed_rng(0)).value == 1.0
    assert ranking_accuracy(make_judged(np.negative), keyed_rng(0)).value == 0.0
    late = make_judged(np.zeros_like)
    late = dataclasses.replace(late, value=late.time.astype(float))
    assert ranking_accuracy(late, keyed_rng(0)).value == 0.5  # all windows compared are equally late


def test_without_a_pair_there_is_no_ranking():
    judged = make_judged()
    one = Judged(*(part[judged.episode == 0] for part in vars(judged).values()))
    assert ranking_accuracy(one, keyed_rng(0)) is None
    equal = Judged(**{**vars(judged), "realised": np.full_like(judged.realised, -3.0) + 1e-13 * judged.time})
    assert ranking_accuracy(equal, keyed_rng(0)) is None


def test_chance_lies_in_the_interval_of_noise_in_most_draws_of_it():
    values = [make_judged(noise=1e9, seed=seed) for seed in range(40)]
    intervals = [ranking_accuracy(judged, keyed_rng(seed)).interval for seed, judged in enumerate(values)]
    assert sum(low <= 0.5 <= high for low, high in intervals) >= 34


def test_discrimination_by_progress():
    judged = make_judged()
    assert all(area in (None, 1.0) for area in discrimination_by_progress(judged))
    values = np.where(judged.progress < 0.5, 0.0, judged.realised)  # blind at first
    found = discrimination_by_progress(Judged(**{**vars(judged), "value": values}))
    assert found[:5] == [0.5] * 5 and found[6:9] == [1.0] * 3
    failures = Judged(*(part[judged.success == 0] for part in vars(judged).values()))
    assert discrimination_by_progress(failures) == [None] * 10


def test_windows_of_different_groups_are_never_compared():
    """A critic that knows only which of two tasks is the longer one knows nothing."""
    one, other = make_judged(np.zeros_like), make_judged(np.zeros_like)
    first = len(LENGTHS)
    other = dataclasses.replace(
        other,
        episode=other.episode + first,
        value=other.value - 9,
        realised=other.realised - 50,
        group=other.group + 1,
    )
    both = Judged(*(np.concatenate(pair) for pair in zip(vars(one).values(), vars(other).values())))
    found = ranking_accuracy(both, keyed_rng(0))
    assert found.value == 0.5 and found.pairs == 2 * ranking_accuracy(one, keyed_rng(0)).pairs
    assert set(discrimination_by_progress(both)) <= {0.5, None}
    mixed = dataclasses.replace(both, group=np.zeros_like(both.group))
    assert ranking_accuracy(mixed, keyed_rng(0)).value > 0.7


def test_the_nearest_failure_is_of_the_same_group_and_a_similar_time():
    states = np.array([[0.0], [1.0], [9.0], [0.2], [0.9], [8.0], [0.1], [0.0]])
    success = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    time = np.array([0, 1, 2, 0, 1, 2, 40, 0])  # the last but one is too late
    group = np.array([0, 0, 0, 0, 0, 0, 0, 1])  # the last is another task
    won, lost = nearest_failures(states, group, time, success, within=5)
    assert list(zip(won, lost)) == [(1, 4), (0, 3)]  # (2, 5) is the far half
    for seen, outcome in ((states, np.ones(8)), (states[:, :0], success)):  # no failure; cameras alone
        assert [len(rows) for rows in nearest_failures(seen, group, time, outcome, within=5)] == [0, 0]


def test_chunk_accuracy_is_the_share_of_successes_that_are_preferred():
    own, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 5.0, 3.0, 1.0])
    won, lost = np.array([0, 0, 1, 1]), np.array([2, 3, 2, 3])
    found = chunk_accuracy(own, other, won, lost, keyed_rng(0))
    assert found.value == 2.5 / 4 and found.pairs == 4
    assert found.interval[0] < 0.5 < found.interval[1] <= 1
    sure = chunk_accuracy(own, own - 1, won, lost, keyed_rng(0))
    assert sure.value == 1 and sure.interval == (1.0, 1.0)
    none = np.empty(0, np.int64)
    assert chunk_accuracy(np.empty(0), np.empty(0), none, none, keyed_rng(0)) is None


def test_spread():
    states = np.array([0.0, 1.0, 2.0, 5.0])
    assert spread(np.repeat(states[:, None], 3, 1)) == 0.0
    chunks = states[:, None] + np.array([-1.0, 0.0, 1.0])
    assert spread(chunks) == pytest.approx(np.sqrt(2 / 3) / states.std())
    ragged = np.concatenate([chunks, np.array([[9.0, np.nan, np.nan]])])
    assert spread(ragged) == pytest.approx(spread(chunks))  # one chunk alone says nothing
    assert spread(np.zeros((3, 2))) == 0.0 and spread(np.array([[0.0, 1.0], [1.0, 0.0]])) == np.inf


def test_calibration_of_values_that_are_the_returns_is_the_diagonal():
    bins = calibration(make_judged(), keyed_rng(0))
    assert sum(part.windows for part in bins) == sum(LENGTHS)
    assert all(part.value == pytest.approx(part.realised) for part in bins)
    assert all(part.interval[0] <= part.realised + 1e-9 for part in bins)
    assert calibration_error(bins) == pytest.approx(0.0, abs=1e-9)
    shifted = calibration(make_judged(lambda realised: realised + 2.5), keyed_rng(0))
    assert calibration_error(shifted) == pytest.approx(2.5)


def test_shapes_that_differ_are_refused():
    parts = vars(make_judged())
    with pytest.raises(ShapeError, match="of each, got"):
        Judged(**{**parts, "value": parts["value"][1:]})

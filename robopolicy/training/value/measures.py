"""Whether a critic can rank: what is computed from its values of held-out windows and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ShapeError
from robopolicy.evaluation.resampling import bootstrap_interval
from robopolicy.evaluation.statistics import Interval

RESAMPLES = 1_000
DECILES = 10
_TIE = 1e-6  # returns closer than this share of their range are equal: sums of floats differ in rounding

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Windows of several episodes.

    Args:
        value: (windows,) what the critic expects, the least of its members [-].
        realised: (windows,) discounted return that the episode had from there on [-].
        episode: (windows,) number of the episode, from 0.
        time: (windows,) steps since the episode's start.
        progress: (windows,) share of the episode that is over, in 0..1.
        success: (windows,) 1 in successful episodes, 0 in others.
        group: (windows,) of store and instruction: windows of different ones are different problems, and
            which of them is easier is not what a critic is for.
    """

    value: Array
    realised: Array
    episode: NDArray[np.int64]
    time: NDArray[np.int64]
    progress: Array
    success: Array
    group: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = {name: part.shape for name, part in vars(self).items()}
        if len(set(shapes.values())) != 1 or self.value.ndim != 1:
            raise ShapeError(f"measures need (windows,) of each, got {shapes}")

    @property
    def episodes(self) -> int:
        return int(self.episode.max(initial=-1)) + 1


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval; ``pairs`` is how many comparisons it is of."""

    value: float
    interval: Interval
    pairs: int


def ranking_accuracy(judged: Judged, rng: np.random.Generator, *, outcomes: bool = False) -> Rate | None:
    """Concordance of values and returns (Harrell et al. 1982).

    Of all pairs of windows from different episodes of a group, at the same time since their start, whose
    returns differ, the share that the values order likewise; equal values count half. Only such pairs tell
    what a critic knows beyond how late it is. 0.5 is chance.

    Args:
        rng: of the bootstrap over episodes, which gives the interval.
        outcomes: only pairs of a successful and a failed episode.
    Returns:
        None where there is no such pair.
    """
    good, pairs = _concordant(judged, outcomes)
    return _rate(good, pairs, int(pairs.sum()) // 2, rng)


def chunk_accuracy(
    own: Array, other: Array, won: NDArray[np.int64], lost: NDArray[np.int64], rng: np.random.Generator
) -> Rate | None:
    """Whether a critic tells chunks apart in one state, as choosing among candidates asks of it.

    Args:
        own: (pairs,) values of what was done at windows of successes.
        other: (pairs,) there, of what was done in a similar situation of a failure (``nearest_failures``).
        won, lost: (pairs,) number of the two episodes.
        rng: of the bootstrap over episodes.
    Returns:
        share of pairs in which the success' own chunk has the higher value, equal ones count half; 0.5 is
        chance. None without pairs.
    """
    count = int(max(won.max(initial=-1), lost.max(initial=-1))) + 1
    good, pairs = np.zeros((count, count)), np.zeros((count, count))
    np.add.at(good, (won, lost), 0.5 * (1 + np.sign(own - other)))
    np.add.at(pairs, (won, lost), 1.0)
    return _rate(good, pairs, len(own), rng)


def nearest_failures(
    states: NDArray[Any], group: NDArray[np.int64], time: NDArray[np.int64], success: Array, *, within: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For windows of successes the one of a failure that looks most alike, in the same group.

    Args:
        states: (windows, features) normalised; without any, nothing looks alike. Others as in ``Judged``.
        within: steps that the two times since the start may differ by.
    Returns:
        rows of the successes and of the failures, (pairs,): the half of the pairs that are nearest.
    """
    lost, found = np.flatnonzero((success == 0) & (states.shape[1] > 0)), list[tuple[float, int, int]]()
    for row in np.flatnonzero(success == 1):
        near = lost[(group[lost] == group[row]) & (np.abs(time[lost] - time[row]) <= within)]
        if len(near):
            apart = np.square(states[near] - states[row]).sum(1)
            place = int(apart.argmin())
            found.append((float(apart[place]), int(row), int(near[place])))
    half = np.array([pair[1:] for pair in sorted(found)[: -(-len(found) // 2)]], np.int64).reshape(-1, 2)
    return half[:, 0], half[:, 1]


def _rate(good: Array, pairs: Array, number: int, rng: np.random.Generator) -> Rate | None:
    """Of tables (episodes, episodes) of comparisons; None where there is none."""
    if not pairs.any():
        return None
    counts = _resampled(len(pairs), rng)
    # a pair of episodes weighs as often as both were drawn; an episode is no pair with its own copy
    wins, of = ((counts @ table * counts).sum(1) for table in (good, pairs))
    point = float(good.sum() / pairs.sum())
    return Rate(point, _interval(wins[of > 0] / of[of > 0], point), number)


def _concordant(judged: Judged, outcomes: bool) -> tuple[Array, Array]:
    """(episodes, episodes) each: pairs of windows that are ordered well, and pairs; symmetric."""
    count = judged.episodes
    good, pairs = np.zeros((count, count)), np.zeros((count, count))
    tie = _TIE * float(np.ptp(judged.realised)) if len(judged.realised) else 0.0
    for time in np.unique(judged.time):
        rows = np.flatnonzero(judged.time == time)
        value, realised = judged.value[rows], judged.realised[rows]
        episode, success, group = judged.episode[rows], judged.success[rows], judged.group[rows]
        gap = realised[:, None] - realised
        counted = (np.abs(gap) > tie) & (episode[:, None] != episode) & (group[:, None] == group)
        if outcomes:
            counted &= np.abs(success[:, None] - success) == 1
        score = 0.5 * (1 + np.sign(gap) * np.sign(value[:, None] - value))
        place = (episode[:, None].repeat(len(rows), 1), episode[None].repeat(len(rows), 0))
        np.add.at(good, place, score * counted)
        np.add.at(pairs, place, counted)
    return good, pairs


def discrimination_by_progress(judged: Judged) -> list[float | None]:
    """In each tenth of the episodes' lengths, how well values tell successes from failures.

    Returns:
        ten areas under the ROC curve (Hanley and McNeil 1982): the chance that a window of a success has a
        higher value than one of a failure in the same group; None where either is missing.
    """
    tenth = np.minimum((judged.progress * DECILES).astype(int), DECILES - 1)
    found: list[float | None] = []
    for place in range(DECILES):
        won = np.flatnonzero((tenth == place) & (judged.success == 1))
        lost = np.flatnonzero((tenth == place) & (judged.success == 0))
        both = 0.5 * (1 + np.sign(judged.value[won][:, None] - judged.value[lost]))
        both = both[judged.group[won][:, None] == judged.group[lost]]
        found.append(float(both.mean()) if both.size else None)
    return found


def spread(values: Array) -> float:
    """How much values depend on the chunk: their deviation over a state's chunks against that over states.

    A critic that does not look at the chunk has 0, and cannot choose among candidates.

    Args:
        values: (states, chunks); NaN where a state has fewer.
    Returns:
        root mean square of the deviation within states, over the deviation of the states' means; 0 where
        neither varies, infinity where only the former does.
    """
    several = values[(~np.isnan(values)).sum(1) > 1]
    if len(several) < 2:
        return 0.0
    within = float(np.sqrt(np.nanvar(several, axis=1).mean()))
    between = float(np.nanmean(several, axis=1).std())
    return within / between if between > 0 else (np.inf if within > 0 else 0.0)


@dataclass(frozen=True)
class Bin:
    """Windows of similar value: mean value, mean return and its 95 % interval, and how many."""

    value: float
    realised: float
    interval: Interval
    windows: int


def calibration(judged: Judged, rng: np.random.Generator, bins: int = 10) -> list[Bin]:
    """Returns that windows of similar value had; intervals by a bootstrap over episodes.

    Args:
        bins: of about as many windows each.
    """
    edges = np.quantile(judged.value, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(np.unique(edges), judged.value, side="right")
    shape = (judged.episodes, int(place.max(initial=0)) + 1)
    total, count, value = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for table, added in ((total, judged.realised), (count, 1.0), (value, judged.value)):
        np.add.at(table, (judged.episode, place), added)
    draws = _resampled(judged.episodes, rng)
    of = draws @ count
    found = []
    for column in np.flatnonzero(count.sum(0)):
        windows = count[:, column].sum()
        mean = float(total[:, column].sum() / windows)
        drawn = of[:, column] > 0
        means = (draws[drawn] @ total[:, column]) / of[drawn, column]
        low, high = np.quantile(means, (0.025, 0.975))
        expected = float(value[:, column].sum() / windows)
        found.append(Bin(expected, mean, (float(low), float(high)), int(windows)))
    return found


def calibration_error(bins: list[Bin]) -> float:
    """Mean distance of a bin's value from its return, weighted by windows (Naeini et al. 2015) [-]."""
    windows = sum(part.windows for part in bins)
    return sum(abs(part.value - part.realised) * part.windows for part in bins) / max(1, windows)


def _resampled(episodes: int, rng: np.random.Generator) -> Array:
    """(RESAMPLES, episodes) how often each episode is drawn."""
    return rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=RESAMPLES).astype(np.float64)


def _interval(replicates: Array, point: float) -> Interval:
    return bootstrap_interval(replicates, point, bounds=(0.0, 1.0))

"""Which checkpoint to try on the robot, without trying them: simulated success and how real data look to it.

After VSDR, "validate on sim, detect on real" (Leibovich et al. 2022): a policy that does well in simulation
may still meet real observations it has never seen the like of, so its simulated success is combined with an
out-of-distribution score on one fixed set of real observations, the same for all. The idea and the two
ingredients are the paper's. The product below, the distances of ``ood.py``, and the intervals are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, ShapeError
from robopolicy.evaluation.ood import Strangeness
from robopolicy.evaluation.resampling import Outcomes, rate, resampled_rates
from robopolicy.evaluation.statistics import Interval, wilson_interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One checkpoint: its simulated episodes (seed to success) and its distances."""

    name: str
    outcomes: Outcomes
    strangeness: Strangeness


@dataclass(frozen=True)
class Ranked:
    """One checkpoint with its place.

    Args:
        ood_ratio: ``Strangeness.ratio``.
        familiarity: min(1, 1 / ood_ratio).
        score: success_rate * familiarity; its interval over resampled seeds and real episodes.
        best_share: how often it came first in those resamples.
        simulated_place: its place by simulated success alone.
    """

    place: int
    name: str
    successes: int
    count: int
    success_rate: float
    success_interval: Interval
    ood_ratio: float
    familiarity: float
    score: float
    score_interval: Interval
    best_share: float
    simulated_place: int


def familiarity(ood_ratio: Array) -> Array:
    """min(1, 1 / ratio): real observations twice as far as simulated ones halve the score."""
    value: Array = np.minimum(1.0, 1.0 / np.maximum(ood_ratio, 1e-12))
    return value


def rank_checkpoints(
    candidates: Sequence[Candidate],
    real_episode: NDArray[np.int64],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Ranked]:
    """Best first.

    Args:
        candidates: measured on the same real observations; seeds that they share are resampled together.
        real_episode: (m,) the episode of each real observation. Whole episodes are resampled, since
            neighbouring frames are nearly the same one.
    Raises:
        ConfigError: none, or two of one name; ShapeError: distances and ``real_episode`` disagree.
    """
    names = [candidate.name for candidate in candidates]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"need checkpoints of different names, got {names}")
    for candidate in candidates:
        if candidate.strangeness.real.shape != real_episode.shape:
            raise ShapeError(
                f"{candidate.name!r} has {candidate.strangeness.real.shape} real distances, there are "
                f"{real_episode.shape} real observations"
            )
    rng = np.random.default_rng(seed)
    rates = np.array([rate(candidate.outcomes) for candidate in candidates])
    ratios = np.array([candidate.strangeness.ratio for candidate in candidates])
    scores = rates * familiarity(ratios)
    drawn = resampled_rates([c.outcomes for c in candidates], resamples, rng) * familiarity(
        _resampled_ratios(candidates, real_episode, resamples, rng)
    )
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    first = drawn == drawn.max(axis=1, keepdims=True)
    best = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    ranked = []
    for place, i in enumerate(_order(scores), start=1):
        successes, count = sum(candidates[i].outcomes.values()), len(candidates[i].outcomes)
        ranked.append(
            Ranked(
                place=place,
                name=names[i],
                successes=successes,
                count=count,
                success_rate=float(rates[i]),
                success_interval=wilson_interval(successes, count, confidence),
                ood_ratio=float(ratios[i]),
                familiarity=float(familiarity(ratios[i])),
                score=float(scores[i]),
                score_interval=(float(low[i]), float(high[i])),
                best_share=float(best[i]),
                simulated_place=_order(rates).index(i) + 1,
            )
        )
    return ranked


def _order(values: Array) -> list[int]:
    """Indices from the largest to the smallest; equal ones as given."""
    order: list[int] = np.argsort(-values, kind="stable").tolist()
    return order


def _resampled_ratios(
    candidates: Sequence[Candidate],
    real_episode: NDArray[np.int64],
    resamples: int,
    rng: np.random.Generator,
) -> Array:
    """(resamples, candidates) ratios over real episodes drawn with replacement, the same for all."""
    _, index = np.unique(real_episode, return_inverse=True)
    episodes = int(index.max()) + 1
    draws = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples)
    frames = draws @ np.bincount(index)
    columns = []
    for candidate in candidates:
        sums = np.bincount(index, weights=candidate.strangeness.real)
        columns.append(draws @ sums / frames / candidate.strangeness.held_out.mean())
    return np.stack(columns, axis=1)

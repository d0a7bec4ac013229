"""What was drawn, how it was judged, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robopolicy.core.policy import Float32

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """One decision, for each row of a batch.

    Args:
        candidates: (batch, drawn, prediction_horizon, action_dim) in the action spec's units.
        scores: name to (batch, drawn), each in its own unit; NaN where it could not judge or was not asked.
        total: (batch, drawn) their sum by weight, NaN where any of them is.
        index: (batch,) of the chosen candidate.
        asked, drawn, scored: how many candidates were wanted, drawn and judged; 1 is never judged.
        notes: fall-backs in words; empty when all went as it was asked for.
        draw_ns, score_ns: time spent.
        deadline_ns: for both together; 0 for none.
    """

    candidates: Float32
    scores: Mapping[str, Values]
    total: Values
    index: NDArray[np.intp]
    asked: int
    drawn: int
    scored: int
    notes: tuple[str, ...]
    draw_ns: int
    score_ns: int
    deadline_ns: int = 0

    @property
    def chosen(self) -> Float32:
        """(batch, prediction_horizon, action_dim)"""
        rows: Float32 = self.candidates[np.arange(len(self.index)), self.index]
        return rows

    def counted(self, rows: Sequence[int] | slice = slice(None)) -> Counters:
        """Of these rows."""
        return counted(
            index=self.index[rows],
            total=self.total[rows],
            asked=self.asked,
            drawn=self.drawn,
            scored=self.scored,
            taken_ns=self.draw_ns + self.score_ns,
            deadline_ns=self.deadline_ns,
        )


@dataclass(frozen=True)
class Counters:
    """Over decisions; they add up."""

    decisions: int = 0
    candidates_drawn: int = 0
    other_than_first: int = 0  # decisions for another than the policy's first sample
    fewer_drawn: int = 0  # decisions: the deadline allowed fewer than asked for
    fewer_scored: int = 0  # decisions: drawn, but no time was left to judge them all
    late: int = 0  # decisions that took longer than the deadline all the same
    nan_candidates: int = 0  # judged, but not a number: never chosen
    nan_rows: int = 0  # decisions for the first sample since no candidate had a value
    fall_backs: int = 0  # decisions that were not what was asked for, by deadline or by value

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(mine + its for mine, its in zip(astuple(self), astuple(other))))


def counted(
    *,
    index: NDArray[np.integer],
    total: Values,
    asked: ArrayLike,
    drawn: ArrayLike,
    scored: ArrayLike,
    taken_ns: ArrayLike,
    deadline_ns: ArrayLike,
) -> Counters:
    """Decisions with index (rows,) and total (rows, n); the rest is (rows,), or one for all of them."""
    asked, drawn, scored = (np.broadcast_to(given, index.shape) for given in (asked, drawn, scored))
    late = np.greater(taken_ns, deadline_ns) & np.greater(deadline_ns, 0)
    judged = (np.arange(total.shape[1]) < scored[:, None]) & (scored > 1)[:, None]
    missing = judged & ~np.isfinite(total)
    fewer_drawn, fewer_scored = drawn < asked, (drawn > 1) & (scored < drawn)
    nan_rows = (scored > 1) & (missing == judged).all(axis=1)
    return Counters(
        decisions=len(index),
        candidates_drawn=int(drawn.sum()),
        other_than_first=int((index > 0).sum()),
        fewer_drawn=int(fewer_drawn.sum()),
        fewer_scored=int(fewer_scored.sum()),
        late=int(np.broadcast_to(late, index.shape).sum()),
        nan_candidates=int(missing.sum()),
        nan_rows=int(nan_rows.sum()),
        fall_backs=int((fewer_drawn | fewer_scored | nan_rows).sum()),
    )

"""Every choice of a run: what was drawn, how it was judged, what was executed, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.policy import Float32
from robopolicy.runtime.inference.client import Response
from robopolicy.runtime.reranking.choice import Counters, counted

Int = NDArray[np.int64]
_COUNTS = ("index", "asked", "scored", "draw_ns", "score_ns", "deadline_ns")


def _none() -> Int:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Decisions:
    """Of one run; K is the most that were drawn at once.

    Args:
        time_ns: (n,) instant of the observation.
        candidates: (n, K, prediction_horizon, action_dim); NaN beyond the ``drawn``.
        values: (n, K) what they were judged by; NaN where they were not.
        index: (n,) of the one that was executed.
        asked, drawn, scored: (n,) candidates.
        draw_ns, score_ns: (n,) time spent; deadline_ns: (n,) for both together, 0 for none.
        notes: what did not go as it was asked for, in words; mostly empty.
        reranked: whether anything judged the candidates; else the first was taken.
        candidates_bytes: of all candidates, also where they are no longer here.
    """

    time_ns: Int = field(default_factory=_none)
    candidates: Float32 = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    index: Int = field(default_factory=_none)
    asked: Int = field(default_factory=_none)
    drawn: Int = field(default_factory=_none)
    scored: Int = field(default_factory=_none)
    draw_ns: Int = field(default_factory=_none)
    score_ns: Int = field(default_factory=_none)
    deadline_ns: Int = field(default_factory=_none)
    notes: tuple[str, ...] = ()
    reranked: bool = False
    candidates_bytes: int = 0

    @classmethod
    def of(cls, responses: Sequence[Response]) -> Decisions:
        """From the answers that were taken up, each with candidates."""
        found = [(r, r.candidates) for r in responses if r.candidates is not None]
        if not found:
            return cls()
        drawn = np.array([len(chunks) for _, chunks in found], np.int64)
        candidates = np.full((len(found), drawn.max(), *found[0][1].shape[1:]), np.nan, np.float32)
        values = np.full(candidates.shape[:2], np.nan)
        for row, (response, chunks) in enumerate(found):
            candidates[row, : len(chunks)] = chunks
            if response.values is not None:
                values[row, : len(chunks)] = response.values
        return cls(
            time_ns=np.array([r.observation_time_ns for r, _ in found], np.int64),
            candidates=candidates,
            values=values,
            drawn=drawn,
            notes=tuple(r.note for r, _ in found),
            reranked=any(r.values is not None for r, _ in found),
            candidates_bytes=candidates.nbytes,
            **{name: np.array([getattr(r, name) for r, _ in found], np.int64) for name in _COUNTS},
        )

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """For a file, under "decision_..."."""
        names = ("time_ns", "candidates", "values", "drawn", *_COUNTS)
        notes = np.array(self.notes, dtype=np.str_) if self.notes else np.zeros(0, "U1")
        return {**{f"decision_{name}": getattr(self, name) for name in names}, "decision_notes": notes}

    @property
    def without_candidates(self) -> Decisions:
        """The rest of it, for whoever has them on disk."""
        return replace(self, candidates=self.candidates[:, :0])

    @property
    def totals(self) -> Mapping[str, int]:
        """``Counters`` over the run; a decision with a note did not go as it was asked for."""
        counts = Counters(decisions=len(self.index), candidates_drawn=int(self.drawn.sum()))
        if self.reranked:
            counts = counted(
                index=self.index,
                total=self.values,
                asked=self.asked,
                drawn=self.drawn,
                scored=self.scored,
                taken_ns=self.draw_ns + self.score_ns,
                deadline_ns=self.deadline_ns,
            )
        return {**asdict(counts), "notes": int(sum(map(bool, self.notes)))}

"""How many candidates a deadline allows: costs as measured, and a ladder of counts to fall back on."""

from __future__ import annotations

from collections import deque

import numpy as np

from robopolicy.core.errors import ConfigError

_LEARN = 5  # first calls for a count that tell what it costs beside the others
_TRUSTED = 3  # of them; fewer may be flukes, as a very first call is
_QUANTILE = 0.95
_NEWEST = 3  # calls whose median is believed at once
_PATIENCE, _LONGEST = 10, 1000  # calls left out before it is tried again; doubled each time that is in vain


def rungs(asked: int) -> tuple[int, ...]:
    """Counts to try, the most first: ``asked``, half of it, a quarter ... 1."""
    found = [asked]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return tuple(found)


class CallCost:
    """Predicts how long a call for n candidates takes, from those measured.

    A call costs shape(n) * pace. The shape is the median of the first calls for each n, linear in between
    and beyond; the pace is the 95th percentile, over a window of calls for any n, of how much longer they
    took than their shape, or the median of the newest where that is more. So a count that is out of reach
    now is predicted from the others, and comes back when they get faster; one slow call changes little, two
    in a row do. Before any call the prediction is 0: somebody has to begin.

    What is left out for want of time is not measured, and nobody would learn that it got faster. So all is
    forgotten after a while of that, and learnt anew; after twice as long where it was as slow as before.

    Time measured is too long now and then, never too short, and n candidates never cost more than n / m times
    what m of them do, nor less than they; so a shape that says otherwise is lowered.

    Args:
        window: newest calls that count for the pace.
    """

    def __init__(self, window: int = 50) -> None:
        if window < 1:
            raise ConfigError(f"window must be >= 1, got {window}")
        self._ratios: deque[float] = deque(maxlen=window)
        self._idle, self._patience = 0, _PATIENCE
        self._forget()

    @property
    def known(self) -> bool:
        """Whether there is anything to predict from."""
        return bool(len(self._counts))

    def add(self, count: int, elapsed_ns: int) -> None:
        """A call for ``count`` candidates took this long."""
        if self.known:
            self._patience = _PATIENCE
        self._idle, elapsed_ns = 0, max(elapsed_ns, 1)
        samples = self._first.setdefault(count, [])
        if len(samples) < _LEARN:
            usual = float(np.median(np.array(self._ratios))) if self._ratios else 1.0
            samples.append(elapsed_ns / usual)
            self._reshape()
        self._ratios.append(elapsed_ns / self._shape(count))
        ratios = np.array(self._ratios)
        usual = np.sort(ratios)[int(_QUANTILE * (len(ratios) - 1))]  # rounded down: one fluke of few is none
        self._pace = max(float(usual), float(np.median(ratios[-_NEWEST:])))

    def left_out(self) -> None:
        """A call was left out for want of time: what was slow once is not believed for ever."""
        self._idle += 1
        if self._idle >= self._patience:
            self._idle, self._patience = 0, min(2 * self._patience, _LONGEST)
            self._forget()

    def predict_ns(self, count: int) -> float:
        """[ns]; 0 before any call."""
        return self._shape(count) * self._pace if self.known else 0.0

    def _forget(self) -> None:
        self._first: dict[int, list[float]] = {}
        self._ratios.clear()
        self._pace = 1.0
        self._counts, self._costs = np.zeros(0), np.zeros(0)  # the shape, by rising count

    def _reshape(self) -> None:
        counts = np.array(sorted(self._first), dtype=np.float64)
        costs = np.array([np.median(self._first[int(count)]) for count in counts])
        bounds = costs[None] * np.maximum(counts[:, None] / counts[None], 1.0)
        costs = bounds.min(axis=1)
        for i in range(2, len(counts)):
            if len(self._first[int(counts[i])]) < _TRUSTED:  # then no more than the line through those below
                slope = (costs[i - 1] - costs[i - 2]) / (counts[i - 1] - counts[i - 2])
                costs[i] = min(costs[i], costs[i - 1] + slope * (counts[i] - counts[i - 1]))
        self._counts, self._costs = counts, costs

    def _shape(self, count: int) -> float:
        counts, costs = self._counts, self._costs
        if counts[0] <= count <= counts[-1]:
            return float(np.interp(count, counts, costs))
        inner, outer = (0, 1) if count < counts[0] else (-1, -2)  # the nearest known count, and the next
        near, cost = counts[inner], costs[inner]
        low, high = sorted((cost, cost * count / near))
        if len(counts) == 1:
            return float(high)
        slope = (cost - costs[outer]) / (near - counts[outer])
        return float(np.clip(cost + slope * (count - near), low, high))


class Deadline:
    """Decides how many candidates to draw and how many to judge, in one policy call of limited time.

    A call that has begun cannot be cut short: what is promised is that nothing is begun that is predicted to
    end too late, except one candidate, which is always drawn, since something has to go out, and now and
    then two or three where no time to judge any was left for long, to learn whether that still holds.

    Args:
        deadline_s: from the beginning of a call to its choice [s]; 0 for none.
    """

    def __init__(self, deadline_s: float) -> None:
        self.budget_ns = round(deadline_s * 1e9)
        self.draw, self.score = CallCost(), CallCost()

    @property
    def on(self) -> bool:
        return self.budget_ns > 0

    def predicted_ns(self, count: int) -> float:
        """For drawing and judging; one candidate is not judged [ns]."""
        judging = self.score.predict_ns(count) if count > 1 else 0.0
        return self.draw.predict_ns(count) + judging

    def to_draw(self, asked: int) -> int:
        """The largest rung that is predicted to be in time, 1 where none is."""
        if not self.on:
            return asked
        counts = rungs(asked) if self.score.known else rungs(asked)[-2:]  # judging begins with few
        return next((n for n in counts if self.predicted_ns(n) <= self.budget_ns), 1)

    def to_score(self, drawn: int, spent_ns: int) -> int:
        """The largest rung that can still be judged, 1, that is none, where time is too short."""
        if not self.on:
            return drawn
        left_ns = self.budget_ns - spent_ns
        return next((n for n in rungs(drawn) if n == 1 or self.score.predict_ns(n) <= left_ns), 1)

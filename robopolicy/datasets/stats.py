"""What a dataset holds, in numbers: values, lengths, rates, labels. Reads one episode at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.serial import to_tree
from robopolicy.datasets.episode import Episode, Signal
from robopolicy.datasets.moments import Moments, Sample
from robopolicy.datasets.store import EpisodeStore

QUANTILES = (0.01, 0.5, 0.99)


@dataclass(frozen=True)
class SignalStats:
    """Of one signal over all samples; every list is nested as one sample is: (dim,), or (points, dim).

    Args:
        names, units: per element of the last axis, empty where the specs give none.
        count: samples; non_finite: how many more were left out for a NaN or an infinity.
        mean, std (of the population), min, max, q01, median, q99: in the signal's units.
        exact: whether quantiles are of all samples, or of an evenly thinned part.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    count: int
    non_finite: int
    mean: Any
    std: Any
    min: Any
    max: Any
    q01: Any
    median: Any
    q99: Any
    exact: bool


@dataclass(frozen=True)
class Spread:
    """Of one number per episode."""

    total: float
    min: float
    median: float
    mean: float
    max: float


@dataclass(frozen=True)
class Rate:
    """Measured from time stamps.

    Args:
        mean_hz: samples per second over all episodes [Hz].
        jitter_p99_ms: 99 % of steps differ from their episode's median step by at most this [ms].
        longest_ms: the longest step [ms].
    """

    mean_hz: float
    jitter_p99_ms: float
    longest_ms: float


@dataclass(frozen=True)
class DatasetStats:
    """Of the episodes that were described.

    Args:
        steps: actions per episode; seconds: first to last action [s].
        success: episodes by "true", "false", "unknown"; instructions and clocks: episodes by text.
        signals: state observations and "action"; rates: the same, where an episode has two samples or more.
        policy_rate: what the specs promise [Hz].
    """

    episodes: int
    steps: Spread
    seconds: Spread
    success: dict[str, int]
    instructions: dict[str, int]
    clocks: dict[str, int]
    policy_rate: float
    signals: dict[str, SignalStats]
    rates: dict[str, Rate]

    @property
    def tree(self) -> dict[str, Any]:
        """The same as plain JSON."""
        tree: dict[str, Any] = to_tree(self)
        return tree


def describe(store: EpisodeStore, names: Iterable[str] | None = None) -> DatasetStats:
    """Numbers over a store. Pictures are not read, so nothing is said of cameras.

    Args:
        names: the episodes to look at; all by default.
    Raises:
        StoreError: an episode is missing or damaged.
    """
    specs = store.specs
    states = tuple(key for key, spec in specs.observation.items() if spec.kind == "state")
    tallies = {key: _Tally() for key in (*states, "action")}
    steps, seconds = [], []
    labels: dict[str, Counter[str]] = {"success": Counter(), "instruction": Counter(), "clock": Counter()}
    for name in store.names if names is None else names:
        episode: Episode = store.read(name, states)
        for key, tally in tallies.items():
            tally.add(episode.action if key == "action" else episode.observation[key])
        times = episode.action.time_ns
        steps.append(float(len(episode)))
        seconds.append(float(times[-1] - times[0]) / 1e9)
        labels["success"]["unknown" if episode.success is None else str(episode.success).lower()] += 1
        labels["instruction"][episode.instruction] += 1
        labels["clock"][episode.clock] += 1
    described = {key: (spec.names, spec.units) for key, spec in specs.observation.items()}
    described["action"] = (specs.action.names, specs.action.units)
    return DatasetStats(
        episodes=len(steps),
        steps=_spread(steps),
        seconds=_spread(seconds),
        success={judged: labels["success"][judged] for judged in ("true", "false", "unknown")},
        instructions=dict(labels["instruction"].most_common()),
        clocks=dict(labels["clock"].most_common()),
        policy_rate=specs.policy_rate,
        signals={key: tally.stats(*described[key]) for key, tally in tallies.items() if tally.moments.count},
        rates={key: tally.rate() for key, tally in tallies.items() if tally.steps.count},
    )


class _Tally:
    """One signal's running numbers."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.non_finite = 0
        self.moments, self.sample = Moments(), Sample()
        self.steps, self.deviations = Moments(), Sample()

    def add(self, signal: Signal) -> None:
        self.shape = signal.value.shape[1:]
        values = signal.value.reshape(len(signal.value), -1).astype(np.float64)
        good = np.isfinite(values).all(axis=1)
        self.non_finite += int((~good).sum())
        self.moments.add(values[good])
        self.sample.add(values[good])
        steps = np.diff(signal.time_ns)[:, None] / 1e9
        if len(steps):
            self.steps.add(steps)
            self.deviations.add(np.abs(steps - np.median(steps)))

    def stats(self, names: tuple[str, ...], units: tuple[str, ...]) -> SignalStats:
        def nested(values: NDArray[np.float64]) -> Any:
            return values.reshape(self.shape).tolist()

        low, median, high = (nested(row) for row in self.sample.quantiles(QUANTILES))
        m = self.moments
        return SignalStats(
            names=names,
            units=units,
            count=m.count,
            non_finite=self.non_finite,
            mean=nested(m.mean),
            std=nested(m.std),
            min=nested(m.min),
            max=nested(m.max),
            q01=low,
            median=median,
            q99=high,
            exact=self.sample.exact,
        )

    def rate(self) -> Rate:
        mean, jitter = float(self.steps.mean[0]), float(self.deviations.quantiles((0.99,))[0, 0])
        return Rate(1 / mean if mean > 0 else 0.0, jitter * 1e3, float(self.steps.max[0]) * 1e3)


def _spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
    median, mean = float(np.median(values)), float(np.mean(values))
    return Spread(float(sum(values)), min(values), median, mean, max(values))

"""Arrays as the checks want them: two axes, float64, angles without wraps, column names, runs of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import ArraySpec, Specs
from robopolicy.datasets.episode import Episode, Signal


def states(episode: Episode, specs: Specs) -> Iterator[tuple[str, Signal, ArraySpec]]:
    """The state observations that the episode holds."""
    for key, signal in episode.observation.items():
        spec = specs.observation[key]
        if spec.kind == "state":
            yield key, signal, spec


def columns(signal: Signal, spec: ArraySpec | None = None) -> NDArray[np.float64]:
    """(count, columns) float64, trailing axes flattened, wrapping angles unwrapped [rad]."""
    values = signal.value.astype(np.float64)
    if spec is not None and spec.angles:
        wrapping = list(spec.angles)
        values[..., wrapping] = np.unwrap(values[..., wrapping], axis=0)
    return values.reshape(len(values), -1)


def column_names(spec: ArraySpec) -> list[str]:
    """One per column of ``columns``, indices where the spec gives no names: "x", "[2]", "[1]y"."""
    size = spec.shape[-1]
    last = list(spec.names) if spec.names else [f"[{i}]" for i in range(size)]
    return ["".join(f"[{i}]" for i in index[:-1]) + last[index[-1]] for index in np.ndindex(*spec.shape)]


def column_units(spec: ArraySpec) -> list[str]:
    """One per column of ``columns``; empty text where the spec gives none."""
    repeats = int(np.prod(spec.shape[:-1], dtype=int))
    return list(spec.units or ("",) * spec.shape[-1]) * repeats


def at_times(signal: Signal, spec: ArraySpec | None, time_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """(times, columns) linearly interpolated, held beyond the ends."""
    values = columns(signal, spec)
    zero = signal.time_ns[0]
    have, want = (signal.time_ns - zero).astype(np.float64), (time_ns - zero).astype(np.float64)
    return np.stack([np.interp(want, have, column) for column in values.T], axis=1)


def newest(signal: Signal, time_ns: NDArray[np.int64]) -> NDArray[Any]:
    """(times, ...) the newest sample that is not later, as policies see it; the first one before that."""
    index = np.searchsorted(signal.time_ns, time_ns, side="right") - 1
    return np.asarray(signal.value[np.maximum(index, 0)])


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index, both included, of each run of True in a (count,) mask."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(start), int(stop) - 1) for start, stop in zip(starts, stops)]

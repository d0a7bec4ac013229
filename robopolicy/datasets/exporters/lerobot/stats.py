"""Statistics as LeRobot keeps them: per episode, and merged over all.

Quantiles over all are the mean of the episodes' quantiles weighted by their length, as in LeRobot; the rest
is exact. Those of cameras are of every ``FRAME_STRIDE``-th frame and ``PIXEL_STRIDE``-th pixel, in 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
FRAME_STRIDE = 4
PIXEL_STRIDE = 2
Stats = dict[str, NDArray[np.float64]]


def of_numbers(values: NDArray[Any]) -> Stats:
    """Of (count, *shape) numbers, each (*shape), (1,) for scalars; "count" is (1,)."""
    exact = values.astype(np.float64).reshape(len(values), *(values.shape[1:] or (1,)))
    stats = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    stats.update(zip(QUANTILES, np.quantile(exact, list(QUANTILES.values()), axis=0)))
    return {**stats, "count": np.array([float(len(values))])}


class Pixels:
    """Statistics of one camera over one episode, from a histogram per colour."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._frames, self._seen = 0, 0

    def add(self, frames: NDArray[np.uint8]) -> None:
        """The next (count, height, width, 3) frames."""
        chosen = frames[-self._seen % FRAME_STRIDE :: FRAME_STRIDE, ::PIXEL_STRIDE, ::PIXEL_STRIDE]
        self._seen += len(frames)
        self._frames += len(chosen)
        for colour in range(3):
            self._counts[colour] += np.bincount(chosen[..., colour].reshape(-1), minlength=256)

    def stats(self) -> Stats:
        """Each (3, 1, 1); "count", of frames, is (1,)."""
        level = np.arange(256) / 255
        total = self._counts.sum(axis=1)
        cumulative = np.cumsum(self._counts, axis=1)
        mean = self._counts @ level / total
        std = np.sqrt(np.maximum(self._counts @ level**2 / total - mean**2, 0))
        found = {"mean": mean, "std": std}
        for name, share in {"min": 0.0, **QUANTILES, "max": 1.0}.items():
            rank = np.maximum(np.ceil(share * total), 1)
            found[name] = level[[int(np.searchsorted(c, r)) for c, r in zip(cumulative, rank)]]
        return {**{k: v.reshape(3, 1, 1) for k, v in found.items()}, "count": np.array([float(self._frames)])}


class Merged:
    """Statistics of all episodes, merged one by one."""

    def __init__(self) -> None:
        self._all: dict[str, Stats] = {}

    def add(self, episode: Mapping[str, Stats]) -> None:
        for key, new in episode.items():
            self._all[key] = _merge(self._all[key], new) if key in self._all else new

    def tree(self) -> dict[str, dict[str, Any]]:
        """Ready for JSON."""
        return {key: as_lists(stats) for key, stats in self._all.items()}


def as_lists(stats: Stats) -> dict[str, Any]:
    return {k: [int(v[0])] if k == "count" else v.tolist() for k, v in stats.items()}


def _merge(old: Stats, new: Stats) -> Stats:
    total = old["count"] + new["count"]
    share = new["count"] / total
    step = new["mean"] - old["mean"]
    variance = old["std"] ** 2 * (1 - share) + new["std"] ** 2 * share + step**2 * share * (1 - share)
    merged = {name: old[name] + (new[name] - old[name]) * share for name in ("mean", *QUANTILES)}
    merged["min"], merged["max"] = np.minimum(old["min"], new["min"]), np.maximum(old["max"], new["max"])
    return {**merged, "std": np.sqrt(variance), "count": total}

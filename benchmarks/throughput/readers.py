"""The ways in which this process reads windows: our loader, a numpy gather from memory, zarr-python alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import keyed_rng
from robopolicy.datasets.loader import Loader, TensorBatch
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows
from throughput.frames import Workload

HORIZONS = Horizons(observation=2, prediction=16, action=8)
SEED = 0


def write_store(workload: Workload, path: Path, codec: str) -> EpisodeStore:
    """Our store of every frame, through the public API."""
    store = EpisodeStore.create(path, workload.specs, image_codec=codec)
    for index in range(len(workload.ends)):
        store.append(workload.episode(index))
    return store


def disk_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def open_windows(workload: Workload, store: EpisodeStore, memory_bytes: int, threads: int = 1) -> Windows:
    keys = ("state", *workload.cameras)
    return Windows(store, HORIZONS, keys, memory_bytes=memory_bytes, threads=threads)


def order(workload: Workload, count: int) -> NDArray[np.int64]:
    """(count, batch_size) the windows that our loader's first batches hold, for the others to read too."""
    shuffled = keyed_rng(SEED, 0).permutation(len(workload))
    count = min(count, len(shuffled) // workload.batch_size)
    return shuffled[: count * workload.batch_size].reshape(count, workload.batch_size)


def ours(windows: Windows, workload: Workload, count: int, prefetch: int = 0) -> Iterator[TensorBatch]:
    """The first ``count`` batches of an epoch; without prefetching, in this thread alone."""
    loader = Loader(windows, batch_size=workload.batch_size, seed=SEED, prefetch=prefetch)
    return islice(loader.epoch(0), count)


def as_float(batches: Iterator[TensorBatch]) -> Iterator[dict[str, torch.Tensor]]:
    """Pictures as LeRobot returns them: (batch, time, channels, height, width) float32 in 0..1."""
    for batch in batches:
        yield {
            name: value.permute(0, 1, 4, 2, 3).contiguous().to(torch.float32).mul_(1 / 255)
            for name, value in batch.observation.items()
            if value.dtype == torch.uint8
        }


class Gather:
    """The yardstick: fancy indexing of arrays that lie ready in memory, with indices that do too."""

    def __init__(self, workload: Workload, batches: NDArray[np.int64]) -> None:
        starts = np.concatenate([[0], workload.ends[:-1]])
        episode = np.searchsorted(workload.ends, batches, side="right")[..., None]
        oldest = batches[..., None] - HORIZONS.action_start
        first, last = starts[episode], workload.ends[episode] - 1
        self.seen = np.clip(oldest + np.arange(HORIZONS.observation), first, last)
        wanted = oldest + np.arange(HORIZONS.prediction)
        self.acted = np.clip(wanted, first, last)
        self.mask = wanted == self.acted
        self.observation: dict[str, NDArray[Any]] = {"state": workload.state, **workload.cameras}
        self.action = workload.action

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        read = {k: torch.from_numpy(v[self.seen[index]]) for k, v in self.observation.items()}
        return {**read, "action": torch.from_numpy(self.action[self.acted[index]])}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self.batch(i) for i in range(len(self.seen)))


def check(batch: TensorBatch, gather: Gather) -> float | None:
    """Hold our first batch against the raw arrays; returns the pictures' PSNR [dB], 118 where bit-equal.

    Raises:
        AssertionError: states, actions or mask differ.
    """
    state = gather.observation["state"][gather.seen[0]]
    np.testing.assert_array_equal(batch.observation["state"].numpy(), state)
    np.testing.assert_array_equal(batch.action.numpy(), gather.action[gather.acted[0]])
    np.testing.assert_array_equal(batch.mask.numpy(), gather.mask[0])
    errors = [
        np.mean((value.numpy().astype(np.float32) - gather.observation[name][gather.seen[0]]) ** 2)
        for name, value in batch.observation.items()
        if value.dtype == torch.uint8
    ]
    if not errors:
        return None
    return float(10 * np.log10(255.0**2 / max(np.mean(errors), 1e-7)))


def zarr_windows(
    store: EpisodeStore, workload: Workload, indices: NDArray[np.int64]
) -> Iterator[NDArray[Any]]:
    """The same windows by slicing arrays that zarr-python opened, one window after the other."""
    starts = np.concatenate([[0], workload.ends[:-1]])
    group = zarr.open_group(store.path, mode="r")
    opened: dict[tuple[int, str], Any] = {}
    for index in indices:
        episode = int(np.searchsorted(workload.ends, index, side="right"))
        step = int(index - starts[episode])
        length = int(workload.ends[episode] - starts[episode])
        spans = {f"observation/{k}": HORIZONS.observation for k in ("state", *workload.cameras)}
        for name, count in {**spans, "action": HORIZONS.prediction}.items():
            key = (episode, name)
            if key not in opened:
                opened[key] = group[f"episodes/{store.names[episode]}/{name}/value"]
            first = step - HORIZONS.action_start
            yield opened[key][max(first, 0) : min(first + count, length)]


def rates(
    runs: dict[str, Callable[[], Any]], windows: int, seconds: float, least: int = 3
) -> dict[str, list[tuple[float, float]]]:
    """Windows per second of each run, round by round, taking turns so that disturbances hit all alike.

    Args:
        runs: each gives an iterable of batches that together hold ``windows`` windows.
        seconds: to spend on all of them together; at least ``least`` rounds, after one that is not counted.
    Returns:
        per round, windows per second of the clock and of processor time of all threads.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    _exhaust(runs)
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(next(iter(found.values()))) < least:
        for name, (clock, processor) in _exhaust(runs).items():
            found[name].append((windows / clock, windows / processor))
    return found


def _exhaust(runs: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Seconds and processor seconds that each run takes, its set-up included."""
    took = {}
    for name, run in runs.items():
        clock, processor = time.perf_counter(), time.process_time()
        for _ in run():
            pass
        took[name] = time.perf_counter() - clock, time.process_time() - processor
    return took

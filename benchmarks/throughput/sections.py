"""One workload, every reader of this process: rates, bytes, agreement with the raw frames, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows
from throughput import readers
from throughput.frames import Workload
from throughput.memory import peak_mib, reset_peak

CODECS = ("lossless", "jpeg")
HEADLINE = "lossless"
IN_MEMORY = 8 << 30  # [bytes] more than any of these workloads


@dataclass
class Row:
    """One reader of one workload; None where it does not apply or was not measured.

    Args:
        windows_per_cpu_s: per second of processor time; what other work on the machine leaves alone.
        vs_lerobot, vs_lerobot_cpu: over the fastest of LeRobot's, by the clock and by processor time.
        vs_numpy: median over rounds of this reader's rate over that of the gather in the same round.
    """

    workload: str
    reader: str
    windows_per_s: float | None = None
    windows_per_cpu_s: float | None = None
    vs_numpy: float | None = None
    vs_lerobot: float | None = None
    vs_lerobot_cpu: float | None = None
    bytes_per_frame: float | None = None
    psnr_db: float | None = None
    peak_mib: float | None = None
    note: str = ""
    rounds: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Windows per second, 0 when not measured."""
        return self.windows_per_s or 0.0

    @property
    def cpu_speed(self) -> float:
        """Windows per processor second, 0 when not measured."""
        return self.windows_per_cpu_s or 0.0


def tabular(workload: Workload, batches: NDArray[np.int64], folder: Path, seconds: float) -> list[Row]:
    """Our loader and the gather in turns; the store is the same with every image codec."""
    store = readers.write_store(workload, folder / "ours", CODECS[0])
    windows = readers.open_windows(workload, store, IN_MEMORY)
    gather = readers.Gather(workload, batches)
    runs: dict[str, Callable[[], Any]] = {
        "numpy gather": lambda: gather,
        "ours": lambda: readers.ours(windows, workload, len(batches)),
    }
    readers.check(next(runs["ours"]()), gather)
    rows = _measure(workload, runs, batches.size, seconds)
    rows[1].bytes_per_frame = readers.disk_bytes(store.path) / len(workload)
    return [*rows, _zarr(workload, store, batches, "zarr-python")]


def images(
    workload: Workload, batches: NDArray[np.int64], folder: Path, seconds: float, threads: int
) -> list[Row]:
    """Each codec, decoded when asked for in one thread; of the headline codec more ways of reading it."""
    gather = readers.Gather(workload, batches)
    rows = _measure(workload, {"numpy gather": lambda: gather}, batches.size, seconds / 4)
    for codec in CODECS:
        store = readers.write_store(workload, folder / f"ours_{codec}", codec)
        windows = readers.open_windows(workload, store, memory_bytes=0)
        psnr = readers.check(next(readers.ours(windows, workload, 1)), gather)
        run = {f"ours {codec}": _read(windows, workload, batches)}
        found = _measure(workload, run, batches.size, seconds)
        if codec == HEADLINE:
            found += _other_ways(workload, store, batches, seconds, threads)
        found.append(_zarr(workload, store, batches, f"zarr-python {codec}"))
        size = readers.disk_bytes(store.path) / len(workload)
        rows += [replace(row, bytes_per_frame=size, psnr_db=psnr) for row in found]
    return rows


def _other_ways(
    workload: Workload, store: EpisodeStore, batches: NDArray[np.int64], seconds: float, threads: int
) -> list[Row]:
    """Converted to what LeRobot returns; with threads and prefetching; held decoded in memory."""
    count, name = len(batches), f"ours {HEADLINE}"
    single = readers.open_windows(workload, store, memory_bytes=0)
    threaded = readers.open_windows(workload, store, memory_bytes=0, threads=threads)
    held = readers.open_windows(workload, store, IN_MEMORY)
    runs: dict[str, Callable[[], Any]] = {
        f"{name}, as float": lambda: readers.as_float(readers.ours(single, workload, count)),
        f"{name}, {threads} threads": lambda: readers.ours(threaded, workload, count, prefetch=2),
        f"{name}, in memory": lambda: readers.ours(held, workload, count),
    }
    return [
        row
        for run in runs.items()
        for row in _measure(workload, dict([run]), batches.size, seconds / 4, least=2)
    ]


def _read(windows: Windows, workload: Workload, batches: NDArray[np.int64]) -> Callable[[], Any]:
    return lambda: readers.ours(windows, workload, len(batches))


def _measure(
    workload: Workload, runs: dict[str, Callable[[], Any]], windows: int, seconds: float, least: int = 3
) -> list[Row]:
    reset_peak()
    rates = readers.rates(runs, windows, seconds, least)
    peak, base = peak_mib(), rates.get("numpy gather")
    rows = []
    for name, rounds in rates.items():
        clock, processor = [a for a, _ in rounds], median(b for _, b in rounds)
        other = [a for a, _ in base] if base and name != "numpy gather" else []
        ratio = median(a / b for a, b in zip(clock, other)) if other else None
        row = Row(workload.name, name, median(clock), processor, ratio, peak_mib=peak, rounds=clock)
        rows.append(row)
    return rows


def _zarr(workload: Workload, store: EpisodeStore, batches: NDArray[np.int64], name: str) -> Row:
    indices = batches.reshape(-1)[: workload.batch_size]
    run = {name: lambda: readers.zarr_windows(store, workload, indices)}
    (row,) = _measure(workload, run, len(indices), seconds=0, least=1)
    return row

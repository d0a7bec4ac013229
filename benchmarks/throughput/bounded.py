"""Sample a store ten times larger than the memory allowed; ``window_throughput.py --large`` starts this.

python benchmarks/throughput/bounded.py STORE LIMIT_BYTES BUDGET_BYTES SECONDS

Once everything is imported, RLIMIT_DATA allows LIMIT_BYTES more private memory; one byte beyond it fails. The
store's files are dropped from the page cache first, so early batches come from the disk.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # when run as a script

import cv2
import torch

from robopolicy.datasets.loader import Loader
from robopolicy.datasets.store import EpisodeStore
from robopolicy.datasets.windows import Windows
from throughput import frames
from throughput.memory import held_mib, peak_mib, reset_peak
from throughput.readers import HORIZONS, disk_bytes


def demonstrate(path: Path, gigabytes: float, quick: bool) -> dict[str, Any]:
    """Write a store of that size by repeating episodes, and sample it in a process held to a tenth.

    Raises:
        CalledProcessError: the sampling process failed, out of memory for one.
    """
    workload = frames.one_camera(quick=True)
    store = EpisodeStore.create(path, workload.specs, image_codec="lossless")
    store.append(workload.episode(0))
    each = disk_bytes(path)
    for _ in range(int(gigabytes * 1e9 / each)):
        store.append(workload.episode(0))
    limit = int(disk_bytes(path) / 10)
    command = [sys.executable, __file__, str(path), str(limit), str(limit // 8), "5" if quick else "20"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def drop_cached(folder: Path) -> None:
    """Ask the kernel to forget the files' pages."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def main() -> None:
    path, limit, budget = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    drop_cached(path)
    reset_peak()
    before = held_mib("RssAnon")
    allowed = int(held_mib("VmData") * 2**20) + limit
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    store = EpisodeStore.open(path)
    windows = Windows(store, HORIZONS, tuple(store.specs.observation), memory_bytes=budget)
    loader = Loader(windows, batch_size=32, seed=0)
    count, most, started = 0, 0.0, time.perf_counter()
    for batch in loader.epoch(0):
        count += len(batch.action)
        most = max(most, held_mib("RssAnon") - before)
        if time.perf_counter() - started > float(sys.argv[4]):
            break
    result = {
        "frames": len(windows),
        "store_mib": disk_bytes(path) / 2**20,
        "limit_mib": limit / 2**20,
        "budget_mib": budget / 2**20,
        "grown_mib": most,
        "peak_rss_mib": peak_mib(),
        "windows": count,
        "windows_per_s": count / (time.perf_counter() - started),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

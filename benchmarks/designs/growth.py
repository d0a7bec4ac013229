"""What appending, opening and reading cost as a store grows."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.progress import track

from designs import Design
from designs.episodes import STEPS, equal

AROUND = 33  # commits that count for one mark; of ours every 32nd is longer than the others
AT_ONCE = 64
TURN = 10


@dataclass(frozen=True)
class Append:
    """One episode: seconds in all, of its commit and of the processor, and bytes given to write calls."""

    whole_s: float
    commit_s: float
    processor_s: float
    written: int


def grow(stores: dict[str, Design], count: int) -> dict[str, list[Append]]:
    """Append ``count`` episodes to each and tag the middle.

    They take turns, so that other load hits all alike, a few episodes at a time. What was written goes to the
    disk before every turn: else a design that syncs waits for what one that does not has left to the kernel.
    """
    found: dict[str, list[Append]] = {name: [] for name in stores}
    for first in track(range(0, count, TURN), "appending"):
        for name, store in stores.items():
            os.sync()
            for seed in range(first, min(first + TURN, count)):
                found[name].append(_append(store, seed))
                if seed + 1 == count // 2:
                    store.tag("half")
    return found


def _append(store: Design, seed: int) -> Append:
    before, busy = written_bytes(), time.process_time()
    whole, commit = store.append(seed)
    return Append(whole, commit, time.process_time() - busy, written_bytes() - before)


def sync_ms(folder: Path, times: int = 20) -> float:
    """Median time in which this disk makes 4 KiB durable [ms]."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:

        def once() -> None:
            file.write(bytes(4096))
            os.fsync(file.fileno())

        return _median_ms(once, times)


def at_mark(appends: list[Append], mark: int) -> dict[str, float]:
    """Figures of episode number ``mark``: medians of times and mean of bytes over its neighbours."""
    half = AROUND // 2
    near = appends[max(mark - 1 - half, 0) : mark + half] if mark > 1 else appends[:3]
    return {
        "append_ms": statistics.median(a.whole_s for a in near) * 1e3,
        "commit_ms": statistics.median(a.commit_s for a in near) * 1e3,
        "processor_ms": statistics.median(a.processor_s for a in near) * 1e3,
        "kib_written": statistics.mean(a.written for a in near) / 1024,
    }


def sizes(path: Path) -> dict[str, float]:
    """Files, folders and bytes below a path."""
    everything = list(path.rglob("*"))
    files = [p for p in everything if p.is_file()]
    return {
        "files": len(files),
        "folders": len(everything) - len(files),
        "mib": sum(p.stat().st_size for p in files) / 2**20,
    }


def looks(kind: type[Design], path: Path, count: int, rounds: int) -> dict[str, float]:
    """Open, list, travel in time and read whole episodes; medians [ms], page cache warm."""
    rng = random.Random(0)
    store = kind(path)

    def read() -> None:
        seed = rng.randrange(count)
        found = store.read(seed)
        if not equal(seed, found):
            raise AssertionError(f"{kind.__name__}: episode {seed} differs from what was written")

    for name, back in (("half", 0), (None, count - count // 2)):
        if (there := store.count_at(path, name, back)) != count // 2:
            raise AssertionError(f"{kind.__name__}: {there} episodes in the version of {count // 2}")
    actions: dict[str, Callable[[], Any]] = {
        "open_and_list_ms": lambda: kind(path).seeds(),
        "open_tag_ms": lambda: store.count_at(path, "half", 0),
        "open_old_version_ms": lambda: store.count_at(path, None, count - count // 2),
        "read_episode_ms": lambda: store.read(rng.randrange(count)),
    }
    read()
    return {name: _median_ms(action, rounds) for name, action in actions.items()}


def frame_rates(
    stores: dict[str, Design], cameras: int, frames: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Random single frames per second of every way of each design; medians, in turns. The first reads are
    compared with one another and not counted."""
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, [cameras, STEPS], (AT_ONCE, 2)) for _ in range(max(frames // AT_ONCE, 1))]
    rates: dict[tuple[str, str], list[float]] = {}
    for store in stores.values():
        store.open_cameras(list(range(cameras)))
    expected = stores["ours"].frames(batches[0], stores["ours"].ways[0])
    for number in range(rounds + 1):
        for name, store in stores.items():
            for way in store.ways:
                begun = time.perf_counter()
                read = [store.frames(batch, way) for batch in batches]
                rate = AT_ONCE * len(batches) / (time.perf_counter() - begun)
                if number:
                    rates.setdefault((name, way), []).append(rate)
                elif not np.array_equal(read[0], expected):
                    raise AssertionError(f"{name}, {way}: frames differ from those of ours")
    found: dict[str, dict[str, float]] = {name: {} for name in stores}
    for (name, way), values in rates.items():
        found[name][way] = statistics.median(values)
    return found


def without_library(path: Path) -> dict[str, str]:
    """Whether zarr-python and tensorstore alone find an episode's actions: "reads" or the error."""
    return {"zarr-python": _try(lambda: _zarr(path)), "tensorstore": _try(lambda: _tensorstore(path))}


def _zarr(path: Path) -> Any:
    root = zarr.open_group(path, mode="r")
    return root["episodes/000000/action/value"][:]  # type: ignore[index]


def _tensorstore(path: Path) -> Any:
    import tensorstore

    where = {"driver": "file", "path": str(path / "episodes/000000/action/value")}
    return tensorstore.open({"driver": "zarr3", "kvstore": where}).result().read().result()


def _try(action: Callable[[], Any]) -> str:
    try:
        return "reads" if len(action()) == STEPS else "reads something else"
    except ImportError:
        return "not installed"
    except Exception as error:
        return f"no: {type(error).__name__}"


def written_bytes() -> int:
    """What this process has passed to write calls so far."""
    with open("/proc/self/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def _median_ms(action: Callable[[], Any], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        action()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e3

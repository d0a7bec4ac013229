"""Two writers at once, and writers that are killed: what of the committed episodes is still there?"""

from __future__ import annotations

import os
import random
import re
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from designs import load
from designs.episodes import equal

WORKER = Path(__file__).with_name("worker.py")


def start(
    design: str, path: Path, first: int, count: int, *flags: str, errors: Any = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """A worker that has opened the store and waits to be told to begin."""
    quiet = {key: value for key, value in os.environ.items() if key != "ICECHUNK_LOG"}
    command = [sys.executable, str(WORKER), design, str(path), str(first), str(count), *flags]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=quiet
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != b"ready\n":
        if not line:
            raise RuntimeError(f"{design}: the worker ended before it was ready")
    return process


def committed(text: str) -> list[int]:
    """Seeds whose commit returned, out of what a worker said."""
    return [int(seed) for seed in re.findall(r"^committed (\d+)$", text, re.MULTILINE)]


def missing(design: str, path: Path, seeds: list[int]) -> tuple[int, int]:
    """How many of these episodes are absent, and how many are there but not as written."""
    store = load(design)(path)
    there = set(store.seeds())
    damaged = sum(not _sound(store, seed) for seed in seeds if seed in there)
    return len(set(seeds) - there), damaged


def _sound(store: Any, seed: int) -> bool:
    try:
        return equal(seed, store.read(seed))
    except Exception:
        return False


def two_writers(design: str, path: Path, each: int, *flags: str) -> dict[str, Any]:
    """Two processes append ``each`` episodes to one store at the same time; with "--touch" they make as many
    of the smallest commits instead, which meet more often."""
    load(design).create(path)
    with open(path.with_suffix(".errors"), "w+b") as errors:
        processes = [start(design, path, n * 100_000, each, *flags, errors=errors) for n in range(2)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        said = [process.communicate()[0].decode() for process in processes]
        errors.seek(0)
        warned = re.findall(r"WARN[^:]*[^ ]* (.*)", re.sub(r"\x1b\[[0-9;]*m", "", errors.read().decode()))
    seeds = [seed for text in said for seed in committed(text)]
    touching = "--touch" in flags
    absent, damaged = (
        (len(seeds) - load(design)(path).touched(), 0) if touching else missing(design, path, seeds)
    )
    return {
        "commits_returned": len(seeds),
        "of": 2 * each,
        "failed_writers": sum(process.returncode != 0 for process in processes),
        "conflicts_seen": sum(int(n) for text in said for n in re.findall(r"conflicts (\d+)", text)),
        "lost": absent,
        "damaged": damaged,
        "warnings": sorted(set(warned)),
    }


def kills(design: str, path: Path, trials: int, seed: int = 0) -> dict[str, Any]:
    """SIGKILL a writer somewhere within an append, reopen, and look for every episode ever committed."""
    rng = random.Random(seed)
    load(design).create(path)
    everything: list[int] = []
    inside, unreadable, damaged, opened = 0, 0, 0, []
    for trial in track(range(trials), f"killing {design}"):
        process = start(design, path, trial * 1000, 900)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        text, wanted, deadline = b"", rng.randint(1, 3), None
        while deadline is None or (left := deadline - time.perf_counter()) > 0:
            if select.select([process.stdout], [], [], 10 if deadline is None else left)[0]:
                text += os.read(process.stdout.fileno(), 4096)
            if deadline is None and text.count(b"committing") >= wanted:
                deadline = time.perf_counter() + rng.uniform(0, 0.2)  # an append takes about that long
        process.kill()
        text += process.stdout.read()
        process.wait()
        inside += text.rstrip().rsplit(b"\n", 1)[-1].startswith(b"committing")
        seeds = committed(text.decode())
        everything += seeds
        begun = time.perf_counter()
        try:
            load(design)(path).seeds()
        except Exception:
            unreadable += 1
            continue
        opened.append(time.perf_counter() - begun)
        damaged += missing(design, path, seeds)[1]
    return {
        "trials": trials,
        "inside_an_append": inside,
        "episodes_committed": len(everything),
        "lost": missing(design, path, everything)[0],
        "damaged": damaged,
        "unreadable": unreadable,
        "reopen_ms": statistics.median(opened) * 1e3 if opened else None,
    }

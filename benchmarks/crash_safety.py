"""Kill recorders with SIGKILL, at random times and inside commits, and look for what is lost.

    python benchmarks/crash_safety.py [--quick] [--trials N] [--json FILE]

Each trial records into one long-lived store from a process of its own: two cameras, states and actions,
20 steps an episode, episode after episode. The recorder reports every episode that ``commit`` returned
for through a pipe, and is killed either a random time after a commit or a random moment into one. Then the
store is opened, timed, and every committed episode is read back and compared with what was recorded (its
content is a function of its seed). Every second trial is meant to be killed inside a commit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, Specs
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.integrity import verify
from robopolicy.datasets.recovery import discard, unfinished
from robopolicy.datasets.store import EpisodeStore

STEPS = 20
SPECS = Specs(
    {
        "joints": ArraySpec((7,), units=("rad",) * 7),
        "left": ArraySpec((48, 64, 3), "uint8", kind="image"),
        "right": ArraySpec((48, 64, 3), "uint8", kind="image"),
    },
    ActionSpec((ActionPart("joint_position", tuple(f"joint_{i}" for i in range(7))),)),
    policy_rate=50.0,
)


def content(seed: int) -> dict[str, Signal]:
    """Every signal of the episode of a seed."""
    rng = np.random.default_rng(seed)
    times = np.arange(STEPS, dtype=np.int64) * 20_000_000
    image = rng.integers(0, 255, (STEPS, 48, 64, 3)).astype(np.uint8)
    return {
        "observation/joints": Signal(rng.random((STEPS, 7)).astype(np.float32), times),
        "observation/left": Signal(image, times),
        "observation/right": Signal(image[::-1].copy(), times),
        "action": Signal(rng.random((STEPS, 7)).astype(np.float32), times + 1),
    }


def recorder(path: str, first_seed: int) -> None:
    """Record without end, telling the parent what happens: one line per event."""
    store = EpisodeStore.open(path)
    for seed in range(first_seed, first_seed + 10_000):
        signals = content(seed)
        with store.begin(seed=seed) as writer:
            for step in range(STEPS):
                for name, whole in signals.items():
                    writer.add(name, Signal(whole.value[step : step + 1], whole.time_ns[step : step + 1]))
                time.sleep(0.002)
            os.write(1, f"committing {seed}\n".encode())
            writer.commit(success=True)
        os.write(1, f"committed {seed}\n".encode())


def kill_one(path: Path, seed: int, inside: bool, rng: random.Random) -> tuple[list[int], str, float]:
    """One recorder, killed. Returns the seeds that it committed, where it was, and after how long."""
    command = [sys.executable, __file__, "--recorder", str(path), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    descriptor, text = process.stdout.fileno(), b""
    wanted = rng.randint(0, 2)  # commits to let pass
    started = time.perf_counter()
    deadline = None
    while True:
        left = 60.0 if deadline is None else deadline - time.perf_counter()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            break
        text += os.read(descriptor, 4096)
        begun, ended = text.count(b"committing"), text.count(b"committed")
        if deadline is None and inside and begun > wanted:
            deadline = time.perf_counter() + rng.uniform(0, 0.025)  # a commit takes about that long
        elif deadline is None and not inside and (ended >= wanted):
            deadline = time.perf_counter() + rng.uniform(0, 0.06)
    elapsed = time.perf_counter() - started
    process.send_signal(signal.SIGKILL)
    text += process.stdout.read()
    process.wait()
    lines = text.decode().split("\n")[:-1]
    done = [int(line.split()[1]) for line in lines if line.startswith("committed")]
    return done, "in commit" if lines and lines[-1].startswith("committing") else "between", elapsed


def check(store: EpisodeStore, seeds: list[int]) -> int:
    """How many of these committed episodes are absent or differ from what was recorded."""
    held = {store.entry(name).seed: name for name in store.names[-len(seeds) - 4 :]}
    lost = 0
    for seed in seeds:
        if seed not in held:
            lost += 1
            continue
        episode = dict(store.read(held[seed]).signals())
        lost += any(
            not np.array_equal(episode[name].value, whole.value)
            or not np.array_equal(episode[name].time_ns, whole.time_ns)
            for name, whole in content(seed).items()
        )
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="40 trials")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recorder", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.recorder:
        return recorder(args.recorder[0], int(args.recorder[1]))
    trials = 40 if args.quick else args.trials
    rng, console = random.Random(args.seed), Console()
    folder = Path(tempfile.mkdtemp(prefix="crash_safety_"))
    path = folder / "store.zarr"
    EpisodeStore.create(path, SPECS)
    result: dict[str, object] = {}
    committed, lost, unreadable, where, reopen, set_aside = 0, 0, 0, Counter[str](), [], 0
    kill_s, per_trial = [], []
    try:
        for trial in track(range(trials), "killing recorders", console=console):
            seeds, place, elapsed = kill_one(path, trial * 10_000, trial % 2 == 0, rng)
            where[place] += 1
            kill_s.append(elapsed)
            per_trial.append(len(seeds))
            committed += len(seeds)
            started = time.perf_counter()
            try:
                store = EpisodeStore.open(path)
                waiting = unfinished(store)
                reopen.append(time.perf_counter() - started)
                lost += check(store, seeds) if seeds else 0
            except Exception as error:
                console.print(f"[red]trial {trial}: {error}")
                unreadable += 1
                continue
            set_aside += len(waiting)
            for item in waiting:
                discard(store, item)
        damages = verify(EpisodeStore.open(path))
        result = {
            "trials": trials,
            "episodes_committed": committed,
            "episodes_lost": lost,
            "stores_unreadable": unreadable,
            "reopen_s_max": max(reopen),
            "killed_inside_a_commit": where["in commit"],
            "killed_between": where["between"],
            "commits_per_trial_mean": float(np.mean(per_trial)),
            "kill_s_quantiles": np.quantile(kill_s, [0, 0.5, 1]).tolist(),
            "episodes_in_store": len(EpisodeStore.open(path)),
            "unfinished_set_aside": set_aside,
            "damages": len(damages),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = Table("figure", "value")
    for key, value in result.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

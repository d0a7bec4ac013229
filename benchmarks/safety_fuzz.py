"""Can anything get through the safety filter, does it let good motion pass, and what does a tick cost?

python benchmarks/safety_fuzz.py [--json FILE] [--quick] [--chunks N] [--arm-chunks N] [--processes N]
    [--store PATH] [--seed N]

One million adversarial chunks (jumps, far and non-finite numbers, limits ridden on, chatter and waves of any
period, drifts, ramps into limits, resonant sines, other arms' chunks, late ones, mixtures, with braking and
resuming in between) at 100, 250, 500 and 1000 Hz from random moving states, for every robot file. Joints are
independent without the Cartesian checks, so 64 arms share a filter there; the last 20,000 chunks go through
every check, one arm at a time. What was sent is judged by finite differences and by kinematics that share
nothing with the filter (safety/judge.py).

Then clean demonstrations, of --store or recorded here, as chunks through the real scheduler and filter, so
that always braking is no way to pass; and the cost of a tick.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from safety.demonstrations import Replay, replay
from safety.runs import CHUNKS_A_RUN, Tally, arm_run, wide_run
from safety.ticks import TickCost, tick_cost

from robopolicy import robots

#: Share of the chunks at each rate [Hz]: the same second costs ten times the ticks at the fastest.
RATES = {100.0: 0.6, 250.0: 0.2, 500.0: 0.12, 1000.0: 0.08}
ARMS = 64  # in one filter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the chunks")
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--arm-chunks", type=int, default=20_000, help="of them through every check")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--store", type=Path, help="of clean demonstrations; recorded on the spot by default")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console, share = Console(), 100 if given.quick else 1
    began = time.monotonic()
    jobs = list(plan(given.chunks // share, given.arm_chunks // share, given.seed))
    wide, arms = run_all(jobs, given.processes, console)
    seconds = time.monotonic() - began
    show_tallies(console, {"joints, 64 arms a filter": wide, "every check, one arm": arms}, seconds)
    replays = demonstrations(given.store, 5 if given.quick else 50)
    show_replays(console, replays)
    ticks = 300 if given.quick else 1500
    costs = [
        tick_cost(n, r, ticks, cartesian=c) for n in robots.names() for r in RATES for c in (False, True)
    ]
    show_costs(console, costs)
    if given.json:
        given.json.write_text(json.dumps(as_tree(wide, arms, replays, costs, seconds), indent=2) + "\n")


def plan(chunks: int, arm_chunks: int, seed: int) -> Iterator[tuple[int, float, str]]:
    """(seed, rate, robot) of each run, "" for many arms side by side; at least so many chunks in all."""
    number, names = 0, robots.names()
    for rate, share in RATES.items():
        for _ in range(-(-round((chunks - arm_chunks) * share) // (CHUNKS_A_RUN * ARMS))):
            number += 1
            yield seed * 1_000_003 + number, rate, ""
        for k in range(-(-round(arm_chunks * share) // CHUNKS_A_RUN)):
            number += 1
            yield seed * 1_000_003 + number, rate, names[k % len(names)]


def run_one(job: tuple[int, float, str]) -> tuple[bool, Tally]:
    """Whether it was one arm, and what came of it."""
    seed, rate, name = job
    return bool(name), arm_run(seed, rate, name) if name else wide_run(seed, rate, ARMS)


def run_all(jobs: list[tuple[int, float, str]], processes: int, console: Console) -> tuple[Tally, Tally]:
    """Sums over the runs of many arms and over those of one."""
    wide, arms = Tally(), Tally()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = pool.imap_unordered(run_one, jobs)
        for single, tally in track(results, "fuzzing", total=len(jobs), console=console):
            (arms if single else wide).add(tally)
    return wide, arms


def demonstrations(store: Path | None, episodes: int) -> dict[float, Replay]:
    """Replays at each rate [Hz] of a store, or of the scripted expert's ``lift``."""
    with tempfile.TemporaryDirectory() as folder:
        if store is None:
            from robopolicy.cli import record

            store = Path(folder) / "lift.zarr"
            record.run(record.Args(output=store, task="lift", episodes=episodes))
        return {rate: replay(store, rate, episodes) for rate in (100.0, 250.0, 500.0)}


def show_tallies(console: Console, tallies: dict[str, Tally], seconds: float) -> None:
    """Chunks, violations and interventions."""
    table = Table("adversarial", "chunks", "arm ticks", "braked", "violations", "interventions by tick")
    for name, tally in tallies.items():
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.interventions.most_common())
        found = ", ".join(f"{kind} {count:,}" for kind, count in tally.violations.items())
        cells = (f"{tally.chunks:,}", f"{tally.ticks:,}", f"{tally.braked_ticks:,}", found or "0")
        table.add_row(name, *cells, reasons)
    console.print(table)
    console.print(f"{seconds / 60:.1f} minutes")


def show_replays(console: Console, replays: dict[float, Replay]) -> None:
    """How much of the demonstrations passes."""
    table = Table("demonstrations", "chunks", "unmodified", "ticks modified", "reasons")
    for rate, found in replays.items():
        share, ticks = found.unmodified / found.chunks, found.modified_ticks / found.ticks
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.most_common())
        table.add_row(
            f"{rate:.0f} Hz", f"{found.chunks:,}", f"{share:.1%}", f"{ticks:.2%}", reasons or "none"
        )
    console.print(table)


def show_costs(console: Console, costs: list[TickCost]) -> None:
    """CPU time of a tick."""
    table = Table("ms a tick", "rate", "checks", "passing p50", "p99", "tracking p50", "p99")
    for c in costs:
        numbers = (c.passing_ms_p50, c.passing_ms_p99, c.tracking_ms_p50, c.tracking_ms_p99)
        table.add_row(c.robot, f"{c.rate_hz:.0f} Hz", c.checks, *(f"{n:.3f}" for n in numbers))
    console.print(table)


def as_tree(
    wide: Tally, arms: Tally, replays: dict[float, Replay], costs: list[TickCost], seconds: float
) -> dict[str, Any]:
    """What --json holds."""
    usual = replays[100.0]
    return {
        "chunks": wide.chunks + arms.chunks,
        "violations": sum(wide.violations.values()) + sum(arms.violations.values()),
        "minutes": seconds / 60,
        "clean_unmodified_share": usual.unmodified / usual.chunks,
        "joints": dict(vars(wide)),
        "every_check": dict(vars(arms)),
        "demonstrations": {f"{rate:.0f}": dict(vars(found)) for rate, found in replays.items()},
        "ticks": [dataclasses.asdict(cost) for cost in costs],
    }


if __name__ == "__main__":
    main()

"""Training samples per second: our loop beside LeRobot's, and beside the floor.

python benchmarks/training_throughput.py [--quick] [--json FILE] [--peer-python PATH] [--threads N] [--case C]

Two cases: LeRobot's default diffusion U-Net of 252 M parameters, where computing takes all the time, and a
small network on pictures of two cameras, where loading does. Both sides train the same network on the same
frames in float32 with the same batch, optimiser (fused AdamW) and number of torch threads, and take turns;
each figure is the median over the turns. LeRobot counts with the storage and number of loading processes that
suit it best. Ours keeps its average of the weights (EMA), which LeRobot does not have. The floor is forward,
backward and optimiser step on one batch that lies ready in memory. Where other work shares the machine, the
rates per second of processor time are the ones to compare (LeRobot's loading processes have none). LeRobot
runs under the Python of its own environment, see ``peers/lerobot_training.py``; without --peer-python it says
"not measured".
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from throughput.memory import machine
from training.cases import Case, compute_bound, loader_bound
from training.ours import IN_MEMORY, Ours
from training.peer import Peer

OURS, FLOOR, LEROBOT = "ours", "resident tensors", "LeRobot"
DECODED = "ours, frames held in memory"
CASES = {"loader": loader_bound, "compute": compute_bound}


class PeerCannotError(Exception):
    """LeRobot cannot read this storage with this decoder here."""


@dataclass
class Way:
    """One way to train a case: ``turn`` gives the seconds of so many steps, by the clock and processor."""

    case: Case
    name: str
    turn: Callable[[int], tuple[float, float]]
    rates: list[float] = field(default_factory=list)
    cpu_rates: list[float] = field(default_factory=list)

    def take(self, steps: int) -> None:
        seconds, processor = self.turn(steps)
        self.rates.append(steps * self.case.batch_size / seconds)
        self.cpu_rates.append(steps * self.case.batch_size / processor)

    @property
    def samples_per_s(self) -> float:
        return median(self.rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer frames, steps and rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--peer-python", type=Path, help="the Python of LeRobot's own environment")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, on both sides")
    parser.add_argument("--case", choices=list(CASES), help="only this one")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console, facts = Console(), machine()
    console.print(facts)
    figures: dict[str, Any] = {}
    ways: list[Way] = []
    peer_facts = None
    for make in CASES.values() if given.case is None else (CASES[given.case],):
        with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
            case, work = make(given.quick), Path(scratch)
            peer = None
            if given.peer_python:
                job = case.peer_job(case.save(work / "frames"))
                peer = stack.enter_context(Peer(given.peer_python, [job], work))
                peer_facts = peer.facts
            found, parameters = compare(case, work, given, peer, stack)
            figures[make.__name__] = {**summary(found), "parameters": parameters}
            console.print(as_table(case, found))
            ways += found
    figures = {**headline(figures), **figures}
    facts["load_1min_after"] = os.getloadavg()[0]
    for name, value in figures.items():
        console.print(f"{name:16} {value}")
    if given.json:
        rows = [
            {"case": w.case.name, "way": w.name, "samples_per_s": w.rates, "per_cpu_s": w.cpu_rates}
            for w in ways
        ]
        details = {"rows": rows, "machine": facts, "lerobot": peer_facts, "threads": given.threads}
        given.json.write_text(json.dumps({**figures, "details": details}, indent=2) + "\n")


def compare(
    case: Case, work: Path, given: argparse.Namespace, peer: Peer | None, stack: contextlib.ExitStack
) -> tuple[list[Way], dict[str, int]]:
    """Every way to train the case, in turns; and how many parameters each side has."""
    store = work / "store"
    ours = Ours(case, store, memory_bytes=0)
    stack.callback(ours.close)
    ways = [Way(case, OURS, ours.train), Way(case, FLOOR, ours.resident)]
    if case.workload.cameras:
        held = Ours(case, store, IN_MEMORY)
        stack.callback(held.close)
        ways.append(Way(case, DECODED, held.train))
    counts = {"ours": ours.parameters}
    if peer:
        for storage in case.stores:
            for backend in peer.facts["backends"] if storage == "h264" else [None]:
                for workers in case.workers:
                    turn = {"job": case.name, "storage": storage, "backend": backend, "workers": workers}
                    ways.append(_of_peer(case, peer, turn, given.threads, counts))
    steps, rounds = (case.quick_steps, 2) if given.quick else (case.steps, 5)
    ways = [way for way in ways if _works(way)]
    for _ in range(rounds):
        for way in ways:
            way.take(steps)
    return ways, counts


def _works(way: Way) -> bool:
    """Whether its first step, which also warms up, goes through."""
    try:
        way.turn(1)
    except PeerCannotError as error:
        Console().print(f"{way.name}: {error}", highlight=False, markup=False)
        return False
    return True


def _of_peer(case: Case, peer: Peer, turn: dict[str, Any], threads: int, counts: dict[str, int]) -> Way:
    def seconds(steps: int) -> tuple[float, float]:
        answer = peer.ask(**turn, steps=steps, threads=threads)
        if "failed" in answer:
            raise PeerCannotError(answer["failed"])
        counts["lerobot"] = answer["parameters"]
        return answer["seconds"], answer["cpu_seconds"]

    how = turn["storage"] + (f" by {turn['backend']}" if turn["backend"] else "")
    return Way(case, f"{LEROBOT}, {how}, {turn['workers']} workers", seconds)


def summary(ways: list[Way]) -> dict[str, Any]:
    """The figures of one case; ratios above 1 favour ours."""
    rate = {way.name: way.samples_per_s for way in ways}
    peers = [speed for name, speed in rate.items() if name.startswith(LEROBOT)]
    cpu = {way.name: median(way.cpu_rates) for way in ways}
    alone = [speed for name, speed in cpu.items() if name.startswith(LEROBOT) and " 0 workers" in name]
    return {
        "samples_per_s": rate[OURS],
        "vs_lerobot": rate[OURS] / max(peers) if peers else None,
        "vs_resident": rate[OURS] / rate[FLOOR],
        "vs_lerobot_cpu": cpu[OURS] / max(alone) if alone else None,
        "vs_resident_cpu": cpu[OURS] / cpu[FLOOR],
        "held_in_memory_vs_resident": rate[DECODED] / rate[FLOOR] if DECODED in rate else None,
        "held_in_memory_vs_lerobot": rate[DECODED] / max(peers) if peers and DECODED in rate else None,
        "lerobot_samples_per_s": max(peers) if peers else None,
    }


def headline(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The published figures: those of the compute-bound case where it was measured."""
    large = figures.get("compute_bound") or figures["loader_bound"]
    return {name: large[name] for name in ("samples_per_s", "vs_lerobot", "vs_resident")}


def as_table(case: Case, ways: list[Way]) -> Table:
    table = Table("way", title=f"{case.name}: samples per second, batches of {case.batch_size}")
    for title in ("median", "least", "most", "a CPU second"):
        table.add_column(title, justify="right")
    for way in ways:
        figures = [f(way.rates) for f in (median, min, max)] + [median(way.cpu_rates)]
        table.add_row(way.name, *(f"{figure:.1f}" for figure in figures))
    return table


if __name__ == "__main__":
    main()

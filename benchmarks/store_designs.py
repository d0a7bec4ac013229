"""Two designs of a demonstration store side by side: ours, and Icechunk with a commit per episode.

python benchmarks/store_designs.py [--quick] [--json FILE] [--episodes N] [--trials N] [--work FOLDER]

The same episodes (150 steps, two states, a 96x96 camera, actions) go into a store of each design on this
disk, in turns: what a commit costs as the store grows, how fast it opens and reads, what two writers at once,
SIGKILL and a power cut leave. Icechunk is no dependency of robopolicy: without it (pip install icechunk; 2.x
wants Python 3.12) its columns are left out. Syncs are counted with strace, where that is installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import designs
from designs import episodes, growth, power, trouble
from rich.console import Console
from rich.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="30 episodes and 3 trials, within a minute")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--episodes", type=int, help="how many to append; 1000 (30 with --quick)")
    parser.add_argument("--trials", type=int, help="how many writers to kill; 40 (3 with --quick)")
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure; the temporary one")
    given = parser.parse_args()
    count = given.episodes or (30 if given.quick else 1000)
    trials = given.trials or (3 if given.quick else 40)
    if count < 10:
        parser.error(f"--episodes must be at least 10, got {count}")
    os.environ.setdefault("ICECHUNK_LOG", "error")  # its warnings are counted in processes of their own
    console, names = Console(), designs.available()
    console.width = max(console.width, 120)
    machine = facts(names)
    if len(names) == 1:
        console.print("icechunk is not installed: only ours is measured")
    with tempfile.TemporaryDirectory(dir=given.work, prefix="store_designs_") as scratch:
        machine["sync_ms"] = growth.sync_ms(Path(scratch))
        figures = measure(Path(scratch), names, count, trials, given.quick)
    machine["load_1min_after"] = os.getloadavg()[0]
    console.print(as_table(figures))
    console.print(machine)
    if given.json:
        result = {"designs": figures, "machine": machine, "episodes": count, "quick": given.quick}
        given.json.write_text(json.dumps(result, indent=2) + "\n")


def facts(names: list[str]) -> dict[str, Any]:
    """What the figures depend on."""
    libraries = ["numpy", "zarr", "numcodecs", *(["icechunk"] if len(names) > 1 else [])]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in libraries},
        "raw_kib_per_episode": episodes.raw_bytes() / 1024,
    }


def measure(
    work: Path, names: list[str], count: int, trials: int, quick: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    """Section to figure to value, per design."""
    paths = {name: work / f"store{number}" for number, name in enumerate(names)}
    figures: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    stores = {name: designs.load(name).create(path) for name, path in paths.items()}
    empty = {name: growth.sizes(path) for name, path in paths.items()}
    appends = growth.grow(stores, count)
    rates = growth.frame_rates(stores, min(count, 200), 128 if quick else 1024, 3 if quick else 7)
    for name in names:
        found, path = figures[name], paths[name]
        for mark in sorted({1, count // 10, count // 2, count}):
            found[f"episode {mark}"] = growth.at_mark(appends[name], mark)
        held = growth.sizes(path)
        per = {f"{key}_per_episode": (held[key] - empty[name][key]) / count for key in held}
        found[f"store of {count}"] = {**held, **per}
        found["looking"] = growth.looks(designs.load(name), path, count, 5 if quick else 21)
        found["random frames per s"] = rates[name]
        found["without the library"] = growth.without_library(path)
    for number, name in enumerate(names):
        found = figures[name]
        each = 5 if quick else 50
        found["two writers, episodes"] = trouble.two_writers(name, work / f"two{number}", each)
        touches = trouble.two_writers(name, work / f"touch{number}", 4 * each, "--touch")
        found["two writers, smallest commits"] = touches
        found["SIGKILL"] = trouble.kills(name, work / f"killed{number}", trials)
        found["power cut"] = power.cut(name, work / f"power{number}", 2 if quick else 5)
    return figures


def as_table(figures: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """One row per figure, one column per design."""
    table = Table("", "figure", *figures)
    for section in next(iter(figures.values())):
        keys = list(dict.fromkeys(key for found in figures.values() for key in found[section]))
        for number, key in enumerate(keys):
            values = [_text(found[section].get(key)) for found in figures.values()]
            table.add_row(section if number == 0 else "", key, *values)
        table.add_section()
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, list):
        return "\n".join(str(item) for item in value) or "none"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()

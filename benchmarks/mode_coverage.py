"""Do policies keep both ways of solving a task that has two? Counted and drawn on two_goal_reach.

python benchmarks/mode_coverage.py [--json FILE] [--quick] [--output FOLDER] [--store STORE]
    [--policy NAME[:OPTION=VALUE] ...] [--steps N] [--states N] [--repeats N] [--seed N]

Demonstrations go to either of two goals by a choice that no observation shows. Each policy is trained on
them, then runs several episodes from each of the same initial states with different noise (one episode, if it
takes none): which goal was reached? From one of these states it also draws 100 chunks, whose paths are drawn
in FOLDER/modes.png. Trained policies stay in FOLDER and are used again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from kept.training import train_once
from modes.figure import draw_figure
from modes.sides import OUTCOMES, TASK, Drawn, draw, outcomes
from rich.console import Console
from rich.table import Table

from robopolicy import policies
from robopolicy.cli import record
from robopolicy.cli.eval import load_any
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.environments import parse_options
from robopolicy.evaluation.statistics import wilson_interval
from robopolicy.training.config import TrainConfig

FIRST_SEED = 2_000_000
CHUNKS = 100
BOTH = ("left", "right")


def main() -> None:
    given = arguments()
    console = Console(width=None if os.isatty(1) else 150)
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    store = given.store or str(
        demonstrations(given.output / "demonstrations.zarr", 20 if given.quick else 100)
    )
    seeds = range(FIRST_SEED, FIRST_SEED + given.states)
    drawn: dict[str, Drawn] = {}
    counts: dict[str, list[Counter[str]]] = {}
    for name in given.policy:
        run = given.output / name.replace(":", "_").replace("=", "_")
        policy = load_any(trained(name, store, run, given.steps, given.seed, console))
        takes_noise = math.prod(policy.policy_specs.noise_shape) > 0
        counts[name] = outcomes(policy, seeds, given.repeats if takes_noise else 1, console)
        drawn[name] = draw(policy, FIRST_SEED, CHUNKS)
    rows = {name: summary(counts[name], drawn[name]) for name in counts}
    console.print(as_table(rows))
    draw_figure(given.output / "modes.png", drawn, counts)
    console.print(f"drawn in {given.output / 'modes.png'}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help="20 demonstrations, 100 steps, 3 states x 4 episodes"
    )
    parser.add_argument("--output", type=Path, help="runs/mode_coverage by default, with _quick if quick")
    parser.add_argument("--store", help="demonstrations of two_goal_reach; recorded unless given")
    parser.add_argument(
        "--policy",
        nargs="+",
        default=["gmm", "behaviour_cloning", "behaviour_cloning:regression=mse", "diffusion_unet"],
        help=f"of {', '.join(policies.names())}",
    )
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--states", type=int, help="initial states")
    parser.add_argument("--repeats", type=int, help="episodes from each")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    given = parser.parse_args()
    given.output = given.output or Path("runs/mode_coverage" + "_quick" * given.quick)
    for name, quick, full in (("steps", 100, 1500), ("states", 3, 20), ("repeats", 4, 10)):
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else full)
    return given


def demonstrations(path: Path, episodes: int) -> Path:
    """Recorded with the expert, who draws a side for each."""
    if not path.exists():
        record.run(record.Args(output=path, task=TASK, episodes=episodes))
    if (there := len(EpisodeStore.open(path).names)) != episodes:
        raise SystemExit(f"{path} holds {there} episodes, not {episodes}; choose another --output")
    return path


def trained(name: str, store: str, run: Path, steps: int, seed: int, console: Console) -> Path:
    """A run folder with a policy of this family, and of this one option where the name has it."""
    family, _, text = name.partition(":")
    options = policies.family(family).Config(**parse_options((text,) if text else ()))
    config = TrainConfig(steps=steps, learning_rate=1e-3, threads=1, seed=seed)
    return train_once(run, [store], config, console, family, options)


def summary(counts: Sequence[Counter[str]], drawn: Drawn) -> dict[str, Any]:
    """Counts over all episodes with Wilson intervals, and from how many states both goals were reached."""
    total = Counter[str]()
    for count in counts:
        total.update(count)
    both = sum(all(count[side] for side in BOTH) for count in counts)
    sides = drawn.sides()
    return {
        "episodes": total.total(),
        **{o: {"count": total[o], "interval": wilson_interval(total[o], total.total())} for o in OUTCOMES},
        "states": len(counts),
        "states_with_both": both,
        "chunks": {outcome: sides[outcome] for outcome in OUTCOMES},
        "by_state": [{outcome: count[outcome] for outcome in OUTCOMES} for count in counts],
    }


def as_table(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(
        "policy",
        "episodes",
        *(f"{outcome} (95 % Wilson)" for outcome in OUTCOMES),
        "states with both goals",
        "chunks left / right / between",
        title="which goal was reached",
    )
    for name, row in rows.items():
        cells = []
        for outcome in OUTCOMES:
            low, high = row[outcome]["interval"]
            cells.append(f"{row[outcome]['count']} [{low:.2f}, {high:.2f}]")
        both = f"{row['states_with_both']} of {row['states']}"
        chunks = " / ".join(str(row["chunks"][outcome]) for outcome in OUTCOMES)
        table.add_row(name, str(row["episodes"]), *cells, both, chunks)
    return table


if __name__ == "__main__":
    main()

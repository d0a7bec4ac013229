"""How chunks become a reference and how they are joined: what that asks of the arm, and success.

python benchmarks/chunk_joining.py --lift RUN --demonstrations STORE --reach RUN [--json FILE] [--quick]

The scheduler's modes in whole real-time runs in simulated time, at several delays, on lift and on
two_goal_reach, whose two goals are equally good. Then ways to lead a reference through the waypoints of a
chunk, on chunks cut from clean demonstrations and on chunks that the policy gave in a run: peaks, deviation,
and the share that keeps the FR3's limits on finite differences at 100 Hz as it is. RUN is a trained policy
that takes a prefix.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from joining.references import REFERENCES, as_scheduled, measure_reference
from joining.simulated import Bench, Run
from rich.console import Console
from rich.table import Table

from robopolicy import robots
from robopolicy.cli.eval import load_any
from robopolicy.core.geometry import Float
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.statistics import wilson_interval
from robopolicy.runtime import SchedulerConfig
from robopolicy.runtime.scheduling.scheduler import MODES
from robopolicy.runtime.scheduling.smoothness import smoothness

DELAYS = (0.0, 0.1, 0.2, 0.3, 0.5)  # [s]
RATE = 100.0  # [Hz]
FIRST_SEED = 2_000_000
DURATIONS = {"lift": 12.0, "two_goal_reach": 6.0}  # [s]
REPLAN_EVERY = {"lift": 0, "two_goal_reach": 2}  # [policy periods]; often, while either goal is still open


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lift", type=Path, required=True, help="a policy trained for lift")
    parser.add_argument("--demonstrations", required=True, help="of lift")
    parser.add_argument("--reach", type=Path, help="a policy trained for two_goal_reach")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="4 episodes and 2 delays instead of 20 and 5")
    given = parser.parse_args()
    episodes, delays = (4, DELAYS[1:5:3]) if given.quick else (20, DELAYS)
    console, rows = Console(width=130), []
    tasks = {"lift": given.lift, **({"two_goal_reach": given.reach} if given.reach else {})}
    chunks: list[Float] = []
    for task, folder in tasks.items():
        bench = Bench(task, load_any(folder), DURATIONS[task])
        if task == "lift":
            for seed in range(FIRST_SEED, FIRST_SEED + episodes):
                bench.run(seed, 0.05, SchedulerConfig(), chunks=chunks)
        found = [
            measure_mode(bench, task, mode, delay, episodes, console) for delay in delays for mode in MODES
        ]
        console.print(mode_table(task, found))
        rows += found
        bench.close()
    shapes = {
        "demonstrations": measure_references(cut(given.demonstrations)),
        "policy": measure_references(np.array(chunks)),
    }
    for name, measured in shapes.items():
        console.print(reference_table(name, measured))
    if given.json:
        given.json.write_text(json.dumps({"references": shapes, "modes": rows}, indent=2) + "\n")


def cut(store: str, horizon: int = 16, every: int = 4) -> Float:
    """(n, horizon, dim) chunks of the demonstrated actions."""
    actions = [episode.action.value.astype(np.float64) for episode in EpisodeStore.open(store).episodes()]
    return np.array([a[i : i + horizon] for a in actions for i in range(0, len(a) - horizon + 1, every)])


def measure_references(chunks: Float) -> list[dict[str, Any]]:
    limits = robots.load("fr3").limits
    references = {**REFERENCES, "the scheduler's": as_scheduled(limits)}
    return [
        {"reference": name, "chunks": len(chunks)} | measure_reference(reference, chunks, 0.1, limits, RATE)
        for name, reference in references.items()
    ]


def measure_mode(
    bench: Bench, task: str, mode: str, delay: float, episodes: int, console: Console
) -> dict[str, Any]:
    config = SchedulerConfig(mode=mode, replan_every=REPLAN_EVERY[task])
    with console.status(f"{task}, {1000 * delay:g} ms, {mode}"):
        runs = [bench.run(FIRST_SEED + k, delay, config) for k in range(episodes)]
    won = sum(run.success for run in runs)
    return {
        "task": task,
        "mode": mode,
        "delay": delay,
        "episodes": episodes,
        "successes": won,
        "interval": list(wilson_interval(won, episodes)),
        "seconds": float(np.mean([len(run.commands) for run in runs])) / RATE,
        **summarise(runs),
    }


def summarise(runs: list[Run]) -> dict[str, float]:
    """Gaps between old and new plans over all but first joins, smoothness of the arm, and the rest."""
    gaps = np.array([np.abs(join.gap[:-1]).max() for run in runs for join in run.joins[1:]])
    metrics = [
        smoothness(run.commands[:, :-1], RATE, run.time_ns, [join.time_ns for join in run.joins])
        for run in runs
    ]
    changed = np.concatenate([(np.abs(run.references - run.commands) > 1e-6).any(1) for run in runs])
    means = ("rms_jerk", "log_dimensionless_jerk", "spectral_arc_length", "splice_velocity")
    return {
        "gap_rms": float(np.sqrt((gaps**2).mean())) if len(gaps) else 0.0,
        "gap_max": float(gaps.max()) if len(gaps) else 0.0,
        **{name: float(np.nanmean([getattr(m, name) for m in metrics])) for name in means},
        "peak_jerk": float(max(m.peak_jerk for m in metrics)),
        "splice_acceleration": float(max(m.splice_acceleration for m in metrics)),
        "changed_by_filter": float(changed.mean()),
        "faults": sum(bool(run.fault) for run in runs),
        "starved": sum(run.scheduler["starved_ticks"] for run in runs) / len(changed),
    }


def mode_table(task: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "delay", "mode", "success", "time", "gap rms, max [mrad]", "jerk rms, peak", "LDLJ", "SPARC"
    )
    table.title = f"{task}; gap and jerk: rms, peak"
    for name in ("splice acc.", "filtered", "starved", "faults"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            f"{1000 * row['delay']:g} ms",
            row["mode"],
            f"{row['successes']}/{row['episodes']}",
            f"{row['seconds']:.2f} s",
            f"{1000 * row['gap_rms']:.0f}, {1000 * row['gap_max']:.0f}",
            f"{row['rms_jerk']:.0f}, {row['peak_jerk']:.0f}",
            f"{row['log_dimensionless_jerk']:.2f}",
            f"{row['spectral_arc_length']:.2f}",
            f"{row['splice_acceleration']:.1f}",
            f"{row['changed_by_filter']:.1%}",
            f"{row['starved']:.1%}",
            str(row["faults"]),
        )
    return table


def reference_table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "reference", "passes, arm alone", "velocity", "acceleration", "jerk", "off waypoints [mrad]"
    )
    table.title = f"{rows[0]['chunks']} chunks, {title}: peak, rms"
    for row in rows:
        table.add_row(
            row["reference"],
            f"{row['passes']:.1%}, {row['arm_passes']:.1%}",
            *(f"{row[f'peak_{n}']:.2f}, {row[f'rms_{n}']:.2f}" for n in ("velocity", "acceleration", "jerk")),
            f"{1000 * row['deviation_max']:.1f}, {1000 * row['deviation_rms']:.2f}",
        )
    return table


if __name__ == "__main__":
    main()

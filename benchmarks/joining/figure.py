"""The picture in docs/scheduling.md.

python benchmarks/joining/figure.py --reach RUN --output docs/scheduling.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from joining.references import REFERENCES
from joining.simulated import Bench
from robopolicy.cli.eval import load_any
from robopolicy.core.geometry import Float
from robopolicy.runtime import SchedulerConfig
from robopolicy.runtime.scheduling.scheduler import MODES

JOINT = 0
COLOURS = {"replace": "#c44e52", "ensemble": "#4c72b0", "real_time_chunking": "#2f8f5b"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reach", type=Path, required=True, help="a policy trained for two_goal_reach")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2_000_007)
    parser.add_argument("--delay", type=float, default=0.3)
    given = parser.parse_args()
    bench = Bench("two_goal_reach", load_any(given.reach), 6.0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    chunks: list[Float] = []
    for mode in MODES:
        config = SchedulerConfig(mode=mode, replan_every=2)
        run = bench.run(given.seed, given.delay, config, chunks=chunks)
        seconds = (run.time_ns - run.time_ns[0]) * 1e-9
        how = "reached a goal" if run.success else "failed"
        label = f"{mode}: {how} after {seconds[-1]:.1f} s"
        right.plot(seconds, run.references[:, JOINT], color=COLOURS[mode], label=label, lw=1.6)
        joins = (np.array([join.time_ns for join in run.joins]) - run.time_ns[0]) * 1e-9
        at_joins = np.interp(joins, seconds, run.references[:, JOINT])
        right.plot(joins, at_joins, "o", color=COLOURS[mode], ms=4)
    right.set(xlabel="time [s]", ylabel="joint 1, reference [rad]")
    right.set_title(f"two_goal_reach, {1000 * given.delay:g} ms of delay; dots: chunks taken up", fontsize=10)
    right.legend(frameon=False, fontsize=8)
    draw_chunk(left, max(chunks, key=lambda chunk: np.abs(np.diff(chunk[:, :7], 2, axis=0)).max()))
    figure.savefig(given.output, dpi=110)


def draw_chunk(axes: Axes, chunk: Float) -> None:
    """Acceleration of the joint that moves least smoothly, by two references through the same waypoints."""
    joint = int(np.abs(np.diff(chunk[:, :7], 2, axis=0)).max(0).argmax())
    at = np.arange(0, 1.5, 0.002)
    for name, colour in (("quintic, differences", "#c44e52"), ("B-spline 3", "#2f8f5b")):
        position = REFERENCES[name](chunk, 0.1, at)[:, joint]
        axes.plot(at[1:-1], np.diff(position, 2) / 0.002**2, color=colour, label=name, lw=1.6)
    bend = np.diff(chunk[:, joint], 2) / 0.1**2
    axes.plot(np.arange(1, 15) * 0.1, bend, "k.", ms=7, label="second differences of the waypoints")
    for limit in (-10.0, 10.0):
        axes.axhline(limit, color="grey", lw=0.8, ls="--")
    low, high = axes.get_ylim()
    axes.set(xlabel="time in the chunk [s]", ylabel=f"acceleration, joint {joint + 1} [rad/s$^2$]")
    axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    axes.set_title("one chunk of the policy (dashed: limit)", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()

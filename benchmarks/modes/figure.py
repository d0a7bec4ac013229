"""The picture of ``benchmarks/mode_coverage.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Polygon
from matplotlib.ticker import MaxNLocator

from modes.sides import OUTCOMES, Drawn

COLOURS = {"left": "#4c72b0", "right": "#c44e52", "none": "#b0b0b0"}
TOLERANCE = 0.02  # [m] of the task


def draw_figure(path: Path, drawn: Mapping[str, Drawn], counts: Mapping[str, list[Counter[str]]]) -> None:
    """Above, the paths of each policy's chunks from one state; below, where its episodes ended."""
    figure, axes = plt.subplots(
        2,
        len(drawn),
        figsize=(3.9 * len(drawn), 6.4),
        layout="constrained",
        squeeze=False,
        height_ratios=(3, 2),
    )
    for column, (name, found) in enumerate(drawn.items()):
        draw_paths(axes[0, column], found)
        axes[0, column].set_title(
            f"{name.replace(':', ', ')}\n{len(found.paths)} chunks from one state", fontsize=10
        )
        draw_counts(axes[1, column], counts[name])
    for row in axes[:, 1:]:
        for other in row:
            other.set_ylabel("")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_paths(axes: Axes, drawn: Drawn) -> None:
    """From above, the robot at the bottom: left is left."""
    axes.add_patch(Polygon(drawn.wall[:, ::-1], color="#40478c", label="wall"))
    for side, goal in drawn.goals.items():
        axes.add_patch(Circle((goal[1], goal[0]), TOLERANCE, color="#2f8f5b", alpha=0.6))
        axes.annotate(side, (goal[1], goal[0] + 0.03), ha="center", fontsize=8)
    for path, lateral in zip(drawn.paths, drawn.lateral):
        side = "left" if lateral > 0.5 else "right" if lateral < -0.5 else "none"
        axes.plot(path[:, 1], path[:, 0], "-", color=COLOURS[side], lw=0.8, alpha=0.5)
    axes.plot(*drawn.paths[0, 0, 1::-1], "k.", ms=6)
    shown = np.concatenate([drawn.paths[:, 0, :2], drawn.wall, *[g[None, :2] for g in drawn.goals.values()]])
    low, high = shown.min(0) - 0.05, shown.max(0) + 0.05
    axes.set(xlim=(high[1], low[1]), ylim=(low[0], high[0]), xlabel="y [m]", ylabel="x [m]")
    axes.set_aspect("equal")


def draw_counts(axes: Axes, counts: list[Counter[str]]) -> None:
    """A bar for each initial state."""
    base = np.zeros(len(counts))
    for outcome in OUTCOMES:
        height = np.array([count[outcome] for count in counts], dtype=np.float64)
        total = int(height.sum())
        axes.bar(
            range(len(counts)),
            height,
            bottom=base,
            color=COLOURS[outcome],
            label=f"{outcome} {total}",
            width=0.8,
        )
        base += height
    axes.set(xlabel="initial state", ylabel="episodes", ylim=(0, 1.3 * base.max()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")

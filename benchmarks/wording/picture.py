"""The tool's paths, coloured by what was said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wording.reaching import Went

GOAL_OFFSET = 0.13  # [m] of each goal from the middle, as in the task
_COLOURS = ("tab:blue", "tab:orange", "tab:gray")


def draw(shown: Mapping[str, list[Went]], path: Path) -> None:
    """From above, in the frame of the two goals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    for (text, episodes), colour in zip(shown.items(), _COLOURS):
        for number, went in enumerate(episodes):
            label = text if number == 0 else None
            axes.plot(-went.path[:, 1], went.path[:, 0], color=colour, alpha=0.5, linewidth=1, label=label)
            axes.plot(-went.path[-1, 1], went.path[-1, 0], ".", color=colour, markersize=5)
    for side in (-1, 1):
        axes.add_patch(
            pyplot.Circle((side * GOAL_OFFSET, 0), 0.02, fill=False, color="tab:green", linewidth=2)
        )
    axes.set_aspect("equal")
    axes.set_xlabel("left to right between the goals [m]")
    axes.set_ylabel("away from the arm [m]")
    axes.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)

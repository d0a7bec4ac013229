"""What a critic expected against what came of it, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.errors import MissingDependencyError
from robopolicy.training.value.judge import Findings

ACCENT, GOOD, BAD, SOFT = "#2b6cb0", "#2f855a", "#c05621", "#718096"


def draw_calibration(path: Path, found: Findings, title: str) -> None:
    """A PNG: mean return of windows of similar value with 95 % intervals, the diagonal, and how often each
    value is given in successful and in failed episodes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("curves need matplotlib: pip install 'robopolicy[viz]'") from error
    figure = Figure(figsize=(5.4, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    value = np.array([part.value for part in found.bins])
    realised = np.array([part.realised for part in found.bins])
    bounds = np.array([part.interval for part in found.bins]).reshape(-1, 2)
    ends = [min(value.min(), bounds.min()), max(value.max(), bounds.max())]
    upper.plot(ends, ends, color=SOFT, linewidth=1, linestyle="--", label="as predicted")
    around = np.abs(np.stack([realised - bounds[:, 0], bounds[:, 1] - realised]))
    style: Any = {"color": ACCENT, "marker": "o", "capsize": 4, "linewidth": 1.2}
    upper.errorbar(value, realised, yerr=around, label="mean of a bin, 95 % interval", **style)
    upper.set(ylabel="realised return [-]")
    upper.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # covers no data
    judged = found.judged
    edges = np.histogram_bin_edges(judged.value, bins=30)
    kinds = ((judged.success == 1, GOOD, "successful"), (judged.success == 0, BAD, "failed"))
    for rows, colour, label in kinds:
        if rows.any():
            lower.hist(judged.value[rows], edges, color=colour, alpha=0.6, label=f"{label} episodes")
    lower.set(xlabel="predicted value [-]", ylabel="windows")
    lower.legend(frameon=False)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=150, format="png")
    partial.replace(path)

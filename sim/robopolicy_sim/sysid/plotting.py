"""Predicted and measured motion of a held-out log, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.errors import MissingDependencyError
from robopolicy_sim.sysid.identify import Identification

_CLOSE_UP = 3.0  # [s] of the log shown large enough to see lag
_MEASURED, _BEFORE, _AFTER, _COMMAND = "black", "#d1603d", "#2a78a8", "#999999"


def plot(result: Identification, path: Path, log: int = 0) -> None:
    """Write a PNG: per joint, a close-up of the motion and the error over the whole log.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("plots need matplotlib: pip install 'robopolicy[viz]'") from error
    shown = result.held_out[log]
    names = [name for name in result.after.joints]
    figure = Figure(figsize=(12, 1.5 * len(names) + 1), layout="constrained")
    axes = figure.subplots(len(names), 2, sharex="col", squeeze=False)
    for row, name in enumerate(names):
        _close_up(axes[row][0], result, log, row)
        _error(axes[row][1], result, log, row)
        axes[row][0].set_ylabel(
            f"{name}\n[{'m' if row == shown.measured.shape[1] - 1 else 'rad'}]", fontsize=8
        )
    axes[0][0].set_title("close-up: command, measured, predicted", fontsize=9)
    axes[0][1].set_title("predicted minus measured [mrad; mm for the gripper]", fontsize=9)
    axes[0][0].legend(fontsize=7, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.15))
    for column in axes[-1]:
        column.set_xlabel("time [s]", fontsize=8)
    figure.suptitle(
        f"held-out log: joint error {1e3 * result.before.arm:.2f} to {1e3 * result.after.arm:.2f} mrad, "
        f"tool {result.before.tool_mm:.2f} to {result.after.tool_mm:.2f} mm (RMS over all held-out logs)",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _close_up(axis: Any, result: Identification, log: int, column: int) -> None:
    shown = result.held_out[log]
    middle = float(shown.times[-1]) / 2
    first, last = middle - _CLOSE_UP / 2, middle + _CLOSE_UP / 2
    ticks = np.arange(len(shown.commands)) * (shown.times[-1] / len(shown.commands))
    near = (ticks >= first) & (ticks <= last)
    axis.plot(ticks[near], shown.commands[near, column], color=_COMMAND, lw=1, label="command")
    near = (shown.times >= first) & (shown.times <= last)
    for values, colour, name, width in (
        (shown.measured, _MEASURED, "measured", 1.8),
        (result.before_paths[log], _BEFORE, "before", 1.2),
        (result.after_paths[log], _AFTER, "after", 1.2),
    ):
        style = "--" if name == "after" else "-"
        axis.plot(shown.times[near], values[near, column], style, color=colour, lw=width, label=name)
    axis.tick_params(labelsize=7)


def _error(axis: Any, result: Identification, log: int, column: int) -> None:
    shown = result.held_out[log]
    for values, colour in ((result.before_paths[log], _BEFORE), (result.after_paths[log], _AFTER)):
        axis.plot(shown.times, 1e3 * (values[:, column] - shown.measured[:, column]), color=colour, lw=1)
    axis.axhline(0.0, color=_COMMAND, lw=0.6)
    axis.tick_params(labelsize=7)

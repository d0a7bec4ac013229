"""The grid as rows, as a table, and as a picture of success against the number of candidates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from grid.table import interval
from rich.console import Console
from rich.table import Table

from selection.cells import Cell
from selection.gains import gain
from selection.recipes import FILTERED, PLAIN, Task
from selection.stages import Setting

Row = dict[str, Any]


def read_cells(setting: Setting, cells: Iterable[Cell]) -> list[Row]:
    """What is filled."""
    files = [cell.file(setting) for cell in cells]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def rows_of(cells: Sequence[Row], tasks: Sequence[Task], selectors: Sequence[str]) -> list[Row]:
    """For each task, selector and K: success over all trainings, and the gain over K = 1 in points."""
    rows = []
    for task in tasks:
        mine = [cell for cell in cells if cell["task"] == task.name]
        base = [cell for cell in mine if cell["selector"] == PLAIN]
        for selector in (PLAIN, FILTERED, *selectors):
            of_selector = [cell for cell in mine if cell["selector"] == selector]
            for count in sorted({cell["k"] for cell in of_selector}):
                found = [cell for cell in of_selector if cell["k"] == count]
                rows.append(_row(task, selector, count, found, base))
    return rows


def _row(task: Task, selector: str, count: int, found: Sequence[Row], base: Sequence[Row]) -> Row:
    won, n = sum(cell["successes"] for cell in found), sum(cell["n"] for cell in found)
    decisions = sum(cell["counts"].get("decisions", 0) for cell in found)
    row = {
        "task": task.name,
        "selector": selector,
        "k": count,
        "success": won / n,
        "successes": won,
        "n": n,
        "trainings": len(found),
        "interval": list(interval(found)),
        "max_reward": float(np.mean([v for cell in found for v in cell["max_reward"].values()])),
        "nan_rows": sum(cell["counts"].get("nan_rows", 0) for cell in found),
        "seconds": float(np.mean([cell["seconds"] for cell in found])),
    }
    if decisions:
        row["other_than_first"] = sum(c["counts"]["other_than_first"] for c in found) / decisions
    if selector != PLAIN:
        for name, what, unit in (("gain_points", "outcomes", 100), ("reward_gain", "max_reward", 1)):
            if (gained := gain(base, found, what)) is not None:
                row[name] = unit * gained.value
                row[f"{name}_interval"] = [unit * edge for edge in gained.interval]
                row[f"{name}_by_training"] = [unit * value for value in gained.by_seed]
    return row


def print_rows(rows: Sequence[Row], console: Console) -> None:
    table = Table(
        "task", "selector", "K", "success", "95 %", "gain over K = 1 (points)", "of each", "max reward"
    )
    for row in rows:
        low, high = row["interval"]
        cells = [row["task"], row["selector"], str(row["k"])]
        cells += [f"{row['successes']}/{row['n']} = {row['success']:.3f}", f"{low:.2f}, {high:.2f}"]
        if "gain_points" in row:
            low, high = row["gain_points_interval"]
            cells += [f"{row['gain_points']:+.1f} [{low:+.1f}, {high:+.1f}]"]
            cells += [" ".join(f"{value:+.0f}" for value in row["gain_points_by_training"])]
        else:
            cells += ["", ""]
        table.add_row(*cells, f"{row['max_reward']:.3f}")
    console.print(table)


def picture(rows: Sequence[Row], tasks: Sequence[Task], selectors: Sequence[str], path: Path) -> None:
    """One panel per task: success against K, one line per selector, bands of 95 %."""
    named = [task for task in tasks if any(row["task"] == task.name for row in rows)]
    figure, axes = plt.subplots(
        1, max(1, len(named)), figsize=(4.2 * max(1, len(named)), 3.6), sharey=True, squeeze=False
    )
    for axis, task in zip(axes[0], named):
        mine = [row for row in rows if row["task"] == task.name]
        first = [row for row in mine if row["selector"] == PLAIN]
        for place, selector in enumerate(selectors):
            line = [*first, *(row for row in mine if row["selector"] == selector)]
            counts, bands = [row["k"] for row in line], np.array([row["interval"] for row in line])
            if len(line) > 1:
                axis.plot(counts, [row["success"] for row in line], "o-", color=f"C{place}", label=selector)
                axis.fill_between(
                    counts, bands[:, 0], bands[:, 1], color=f"C{place}", alpha=0.12, linewidth=0
                )
        for row in (row for row in mine if row["selector"] == FILTERED):
            axis.axhline(
                row["success"], color="black", linestyle="--", linewidth=1, label="successes alone, K = 1"
            )
        axis.set(title=task.name, xscale="log", xlabel="candidates K", ylim=(-0.02, 1.02))
        ticks = sorted({row["k"] for row in mine})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("success")
    if named:
        axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)

"""Cells as a table with intervals, as a plot, and as a tree for JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from grid.cells import Setting
from grid.recipes import Recipe, Task
from robopolicy.evaluation.statistics import wilson_interval

Cells = dict[tuple[str, str, int], dict[str, Any]]


def read_cells(
    setting: Setting, tasks: Sequence[Task], recipes: Sequence[Recipe], seeds: Iterable[int]
) -> Cells:
    """The filled cells by (task, family, seed)."""
    found: Cells = {}
    for seed in seeds:
        for task in tasks:
            for recipe in recipes:
                path = setting.cell(task, recipe, seed) / "cell.json"
                if path.is_file():
                    found[task.name, recipe.family, seed] = json.loads(path.read_text())
    return found


def of(cells: Cells, task: Task, recipe: Recipe) -> list[dict[str, Any]]:
    """The trainings of one family on one task, by seed."""
    return [cell for key, cell in sorted(cells.items()) if key[:2] == (task.name, recipe.family)]


def interval(found: Sequence[dict[str, Any]], resamples: int = 4000) -> tuple[float, float]:
    """95 % interval of the mean success over trainings and episodes.

    With several trainings the hull of Wilson's on all episodes and of a bootstrap that draws trainings
    first and then episodes: trainings differ by more than episodes do.
    """
    won, count = sum(c["successes"] for c in found), sum(c["n"] for c in found)
    low, high = wilson_interval(won, count)
    if len(found) < 2:
        return low, high
    rng = np.random.default_rng(0)
    rates = np.array([c["successes"] / c["n"] for c in found])
    drawn = rates[rng.integers(len(rates), size=(resamples, len(rates)))]
    episodes = np.mean([c["n"] for c in found])
    means = rng.binomial(int(episodes), drawn).mean(axis=1) / int(episodes)
    return min(low, float(np.quantile(means, 0.025))), max(high, float(np.quantile(means, 0.975)))


def print_table(cells: Cells, tasks: Sequence[Task], recipes: Sequence[Recipe], console: Console) -> None:
    table = Table("policy", "million", "training s", *(task.name for task in tasks), "mean")
    for recipe in recipes:
        row, rates, size, seconds = [], [], 0.0, []
        for task in tasks:
            found = of(cells, task, recipe)
            if not found:
                row.append("")
                continue
            low, high = interval(found)
            won, count = sum(c["successes"] for c in found), sum(c["n"] for c in found)
            each = " ".join(str(c["successes"]) for c in found)
            row.append(f"{won}/{count} [{low:.2f}, {high:.2f}]\n{each}")
            rates.append(won / count)
            size = found[0]["train"]["parameters"] / 1e6
            seconds += [c["train"]["train_seconds"] for c in found]
        if rates:
            table.add_row(
                recipe.family, f"{size:.2f}", f"{np.mean(seconds):.0f}", *row, f"{np.mean(rates):.3f}"
            )
    console.print(table)


def as_tree(cells: Cells, tasks: Sequence[Task], recipes: Sequence[Recipe]) -> dict[str, Any]:
    """Every cell, and for each policy and task the pooled rate with its interval."""
    pooled = []
    for recipe in recipes:
        for task in tasks:
            if found := of(cells, task, recipe):
                won, count = sum(c["successes"] for c in found), sum(c["n"] for c in found)
                row = {"policy": recipe.family, "task": task.name, "successes": won, "n": count}
                pooled.append({**row, "seeds": len(found), "interval": list(interval(found))})
    return {"pooled": pooled, "cells": list(cells.values())}


def picture(cells: Cells, tasks: Sequence[Task], recipes: Sequence[Recipe], path: Path) -> None:
    """One panel per task: each family's rate with its interval, and its trainings as dots."""
    figure, axes = plt.subplots(1, len(tasks), figsize=(2.6 * len(tasks), 3.2), sharey=True, squeeze=False)
    for axis, task in zip(axes[0], tasks):
        for place, recipe in enumerate(recipes):
            found = of(cells, task, recipe)
            if not found:
                continue
            rates = [c["successes"] / c["n"] for c in found]
            low, high = interval(found)
            axis.plot([low, high], [place, place], color=f"C{place}", linewidth=3, alpha=0.4)
            axis.plot(rates, [place] * len(rates), "o", color=f"C{place}", markersize=4)
        axis.set(title=task.name, xlim=(-0.03, 1.03), xlabel="success")
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(recipes)), [recipe.family for recipe in recipes])
    axes[0, 0].invert_yaxis()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)

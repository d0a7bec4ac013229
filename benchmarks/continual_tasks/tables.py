"""The figures of ``continual.py`` in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from robopolicy.evaluation.statistics import wilson_interval

Row = dict[str, Any]


def print_stages(rows: Sequence[Row], console: Console) -> None:
    """One line for each method and stage, one column for each task; seeds are added up."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    table = Table("method", "stage", *tasks, title="after each stage: successes / episodes, error of chunks")
    for method, stage in dict.fromkeys((row["method"], row["stage"]) for row in rows):
        cells = [method, str(stage)]
        for task in tasks:
            found = [r for r in rows if (r["method"], r["stage"], r["task"]) == (method, stage, task)]
            cells.append(cell(found) if found else "")
        table.add_row(*cells)
    console.print(table)


def cell(rows: Sequence[Row]) -> str:
    error = f"{sum(row['error'] for row in rows) / len(rows):.4f}"
    if clipped := max(row.get("clipped", 0.0) for row in rows):
        error += f" ({100 * clipped:.0f} % clipped)"
    if "successes" not in rows[0]:
        return error
    return f"{sum(r['successes'] for r in rows)}/{sum(r['episodes'] for r in rows)}  {error}"


def summary(rows: Sequence[Row]) -> list[Row]:
    """Of each method, over all seeds and tasks that were added or known before.

    Drops are of the old tasks, from the stage in which each was learnt to the last one; "per_parameter" is
    the mean success on new tasks, when they had just been learnt, by a million trained parameters.
    """
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        last = max(row["stage"] for row in mine)
        new = [row for row in mine if row["learnt_in"] == row["stage"] > 0]
        old = [row for row in mine if row["stage"] == last > row["learnt_in"]]
        before = [at(mine, row) for row in old]
        trained = sum(row["parameters_trained"] for row in new) / max(1, len(new))
        one: Row = {
            "method": method,
            "trained_per_task": trained,
            "same_actions": all(row["same_actions"] for row in old),
            "new_error": mean([row["error"] for row in new]),
            "new_clipped": mean([row.get("clipped", 0.0) for row in new]),
            "old_error_rise": mean([r["error"] - b["error"] for r, b in zip(old, before)]),
        }
        if "successes" in mine[0]:
            wins, tries = (sum(row[key] for row in new) for key in ("successes", "episodes"))
            one.update(
                new_successes=wins,
                new_episodes=tries,
                old_drop=mean([rate(b) - rate(r) for r, b in zip(old, before)]),
                final=mean([rate(row) for row in mine if row["stage"] == last]),
                per_parameter=wins / max(1, tries) / (trained / 1e6) if trained else None,
            )
        found.append(one)
    return found


def print_summary(found: Sequence[Row], console: Console) -> None:
    measured = "final" in found[0]
    head = [
        "method",
        "trained per task",
        "old actions the same",
        "new: error",
        "demonstrated but clipped",
        "old: error rises by",
    ]
    extra = ["new: success", "old: drop", "final mean", "new success per M trained"]
    table = Table(*head, *(extra if measured else ()))
    for one in found:
        cells = [
            one["method"], f"{one['trained_per_task']:,.0f}", "yes" if one["same_actions"] else "no",
            f"{one['new_error']:.4f}", f"{100 * one['new_clipped']:.0f} %", f"{one['old_error_rise']:.4f}",
        ]  # fmt: skip
        if measured:
            wins, tries = one["new_successes"], one["new_episodes"]
            low, high = wilson_interval(wins, tries) if tries else (0.0, 1.0)
            ratio = one["per_parameter"]
            cells += [
                f"{wins}/{tries} [{low:.2f}, {high:.2f}]", f"{one['old_drop']:.3f}", f"{one['final']:.3f}",
                "" if ratio is None else f"{ratio:.2f}",
            ]  # fmt: skip
        table.add_row(*cells)
    console.print(table)


def at(rows: Sequence[Row], row: Row) -> Row:
    """The same task when it had just been learnt."""
    key = (row["seed"], row["task"], row["learnt_in"])
    return next(r for r in rows if (r["seed"], r["task"], r["stage"]) == key)


def rate(row: Row) -> float:
    return float(row["successes"] / row["episodes"])


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

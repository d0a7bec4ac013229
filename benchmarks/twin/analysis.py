"""Tables of success into figures: intervals, rank violation, correlation, and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table
from twin.worlds import WORLDS

from robopolicy.core.serial import to_tree
from robopolicy.evaluation.resampling import bootstrap_interval, rate, resampled_rates
from robopolicy.evaluation.sim_vs_real import RESAMPLES, Change, change, correlation, rank_violation
from robopolicy.evaluation.statistics import Interval, wilson_interval

Outcomes = Mapping[str, Mapping[str, Mapping[int, bool]]]  # world -> policy -> seed -> success


def compare(outcomes: Outcomes) -> Change:
    """Agreement with the twin before and after, bootstrapped over seeds that all share."""
    return change(real=outcomes["real"], before=outcomes["before"], after=outcomes["after"])


def rates(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """Policy -> world -> successes, episodes, rate and Wilson interval."""
    result: dict[str, dict[str, Any]] = {}
    for world in WORLDS:
        for policy, episodes in outcomes[world].items():
            won, count = sum(episodes.values()), len(episodes)
            entry = {
                "successes": won,
                "n": count,
                "rate": won / count,
                "interval": wilson_interval(won, count),
            }
            result.setdefault(policy, {})[world] = entry
    return result


def absolute_errors(outcomes: Outcomes) -> dict[str, tuple[float, Interval]]:
    """Mean over policies of |simulated - real|: before, after, and their difference, on common draws."""
    names = sorted(outcomes["real"])
    tables = [outcomes[world][name] for world in WORLDS for name in names]

    def errors(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        real, before, after = np.moveaxis(flat.reshape(-1, len(WORLDS), len(names)), 1, 0)
        sides = [np.abs(sim - real).mean(axis=-1) for sim in (before, after)]
        return np.stack([*sides, sides[1] - sides[0]], axis=-1)

    drawn = errors(resampled_rates(tables, RESAMPLES, np.random.default_rng(0)))
    points = errors(np.array([rate(table) for table in tables]))[0]
    return {
        name: (
            float(point),
            bootstrap_interval(column, float(point), bounds=(-1.0 if name == "change" else 0.0, 1.0)),
        )
        for name, point, column in zip(("before", "after", "change"), points, drawn.T)
    }


def perfect(outcomes: Outcomes) -> dict[str, float]:
    """What a simulator with the twin's own rates would get on average, were its episodes independent."""
    rates_of = np.array([rate(table) for table in outcomes["real"].values()])
    count = len(next(iter(outcomes["real"].values())))
    drawn = np.random.default_rng(0).binomial(count, rates_of, size=(RESAMPLES, 2, len(rates_of))) / count
    real, sim = drawn[:, 0], drawn[:, 1]
    return {
        "mmrv_perfect": float(rank_violation(real=real, sim=sim).mean()),
        "pearson_perfect": float(np.nanmean(correlation(real, sim))),
        "mean_absolute_error_perfect": float(np.abs(real - sim).mean()),
    }


def as_tree(outcomes: Outcomes, result: Change) -> dict[str, Any]:
    """What ``--json`` writes."""
    tree: dict[str, Any] = {}
    figures = {
        "mmrv": {
            "before": (result.before.mmrv, result.before.mmrv_interval),
            "after": (result.after.mmrv, result.after.mmrv_interval),
            "change": (result.mmrv, result.mmrv_interval),
        },
        "pearson": {
            "before": (result.before.pearson, result.before.pearson_interval),
            "after": (result.after.pearson, result.after.pearson_interval),
            "change": (result.pearson, result.pearson_interval),
        },
        "mean_absolute_error": absolute_errors(outcomes),
    }
    for figure, sides in figures.items():
        for side, (value, interval) in sides.items():
            tree[f"{figure}_{side}"], tree[f"{figure}_{side}_interval"] = value, interval
    return {
        **tree,
        **perfect(outcomes),
        "resampled": result.before.resampled,
        "policies": to_tree(rates(outcomes)),
    }


def table(outcomes: Outcomes) -> Table:
    """Success per policy in the three worlds, best in the twin first."""
    made = Table(title="success, 95 % Wilson intervals")
    for column in ("policy", "real (twin)", "sim before", "sim after"):
        made.add_column(column, no_wrap=True)
    by_policy = rates(outcomes)
    for name in sorted(by_policy, key=lambda n: -by_policy[n]["real"]["rate"]):
        cells = []
        for world in WORLDS:
            entry = by_policy[name][world]
            low, high = entry["interval"]
            cells.append(f"{entry['successes']}/{entry['n']} [{low:.2f}, {high:.2f}]")
        made.add_row(name, *cells)
    return made


def scatter(outcomes: Outcomes, result: Change, path: Path) -> None:
    """Simulated against real success, one point a policy, before and after."""
    by_policy = rates(outcomes)
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axis, world, side in zip(
        figure.subplots(1, 2, sharex=True, sharey=True), ("before", "after"), (result.before, result.after)
    ):
        axis.plot([0, 1], [0, 1], color="#bbbbbb", lw=1)
        for name, worlds in by_policy.items():
            real, sim = worlds["real"], worlds[world]
            axis.errorbar(
                real["rate"], sim["rate"],
                xerr=_spread(real), yerr=_spread(sim), fmt="o", ms=5, lw=0.8, color=_colour(name),
            )  # fmt: skip
        axis.set_title(
            f"{world} identification\nMMRV {side.mmrv:.3f} [{side.mmrv_interval[0]:.3f}, "
            f"{side.mmrv_interval[1]:.3f}], Pearson {side.pearson:.2f} [{side.pearson_interval[0]:.2f}, "
            f"{side.pearson_interval[1]:.2f}]",
            fontsize=9,
        )
        axis.set_xlabel("success on the twin, which plays the real robot")
        axis.set_aspect("equal")
        axis.set_xlim(-0.03, 1.03)
        axis.set_ylim(-0.03, 1.03)
    figure.axes[0].set_ylabel("success in simulation")
    for task, colour in _COLOURS.items():
        if any(name.startswith(task) for name in by_policy):
            figure.axes[1].plot([], [], "o", color=colour, label=task)
    figure.axes[1].legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=130)


_COLOURS = {"lift": "#2a78a8", "place": "#d1603d", "push": "#4f9d5d", "stack": "#8a5fa8"}


def _colour(policy: str) -> str:
    return next((c for task, c in _COLOURS.items() if policy.startswith(task)), "black")


def _spread(entry: Mapping[str, Any]) -> list[list[float]]:
    low, high = entry["interval"]
    return [[max(entry["rate"] - low, 0.0)], [max(high - entry["rate"], 0.0)]]

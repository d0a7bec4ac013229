"""Figures of the report, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robopolicy.evaluation.results import EpisodeResult

GREEN, RED, BLUE, GREY = "#2ea043", "#da3633", "#0969da", "#6e7781"


def png(draw: Callable[[Axes], None], size: tuple[float, float] = (5.2, 3.2)) -> bytes:
    """Draw on fresh axes and return the picture."""
    figure, axes = plt.subplots(figsize=size, dpi=110, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def loss_curve(steps: list[int], losses: list[float]) -> bytes:
    """Training loss over optimiser steps, logarithmic."""

    def draw(axes: Axes) -> None:
        axes.semilogy(steps, losses, color=BLUE, linewidth=1.5)
        axes.set(xlabel="optimiser step", ylabel="training loss (mean of 50)")
        axes.grid(alpha=0.3, which="both")

    return png(draw)


def rates(rows: list[tuple[str, int, int, tuple[float, float]]]) -> bytes:
    """Bars of success rates with their intervals; rows are (label, successes, n, interval)."""

    def draw(axes: Axes) -> None:
        for place, (_, successes, count, (low, high)) in enumerate(rows):
            rate = successes / count
            axes.barh(place, rate, color=BLUE if place == 0 else GREY, height=0.6)
            error = [[max(rate - low, 0.0)], [max(high - rate, 0.0)]]
            axes.errorbar(rate, place, xerr=error, color="black", capsize=4, linewidth=1.2)
            axes.text(1.03, place, f"{successes}/{count}", va="center")
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="success rate, 95 % Wilson interval")

    return png(draw, (5.2, 0.75 + 0.55 * len(rows)))


def starts(episodes: list[EpisodeResult], key: str) -> bytes:
    """Where the object started, coloured by outcome; ``key`` is an observation that begins with x, y [m]."""

    def draw(axes: Axes) -> None:
        for success, colour, label in ((True, GREEN, "success"), (False, RED, "failure")):
            points = np.array([e.start[key][:2] for e in episodes if e.success is success]).reshape(-1, 2)
            axes.scatter(
                points[:, 1], points[:, 0], color=colour, s=28, label=f"{label} ({len(points)})", alpha=0.8
            )
        axes.set(xlabel="y [m]", ylabel="x [m]", aspect="equal")
        axes.invert_xaxis()
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))

    return png(draw, (5.2, 4.0))


def histogram(values_ms: NDArray[Any], label: str, limit_ms: float | None = None) -> bytes:
    """Latencies on a logarithmic count axis, with p50 and p99."""

    def draw(axes: Axes) -> None:
        axes.hist(values_ms, bins=60, color=BLUE, log=len(values_ms) > 500)
        for percentile, style in ((50, ":"), (99, "--")):
            value = float(np.percentile(values_ms, percentile))
            axes.axvline(value, color="black", linestyle=style, label=f"p{percentile} {value:.2f} ms")
        if limit_ms is not None:
            axes.axvline(limit_ms, color=RED, label=f"limit {limit_ms:g} ms")
        axes.set(xlabel=label, ylabel="count")
        axes.legend(frameon=False)

    return png(draw)


def commands(time_ns: NDArray[Any], sent: NDArray[Any], reference: NDArray[Any], names: list[str]) -> bytes:
    """Commands of one real-time episode; thin and black what the scheduler had asked for."""

    def draw(axes: Axes) -> None:
        seconds = (time_ns - time_ns[0]) * 1e-9
        for column, name in enumerate(names):
            axes.plot(seconds, sent[:, column], linewidth=1.6, label=name)
            axes.plot(seconds, reference[:, column], color="black", linewidth=0.5)
        axes.set(xlabel="time [s]", ylabel="position [rad or m]")
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))

    return png(draw, (7.4, 3.4))

"""Figures of the reports, as SVG that takes its colours from the page's style sheet, light or dark."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robopolicy.evaluation.results import EpisodeResult

# Stand-ins that become variables of the page; any colours would do that nothing else uses.
INK, SOFT, LINE, PAPER, ACCENT, GOOD, BAD = (f"#0a0b0{i}" for i in range(7))
SERIES = tuple(f"#0a0c0{i}" for i in range(6))
_VARIABLES = dict(
    zip(
        (INK, SOFT, LINE, PAPER, ACCENT, GOOD, BAD), ("ink", "soft", "line", "paper", "accent", "good", "bad")
    )
) | {colour: f"series-{i}" for i, colour in enumerate(SERIES)}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "svg.hashsalt": "robopolicy",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=SERIES),
    "figure.facecolor": "none",
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "legend.frameon": False,
}


def svg(draw: Callable[[Axes], None], size: tuple[float, float] = (5.2, 3.2)) -> str:
    """Draw on fresh axes and return an ``<svg>`` element without a size of its own [size in inches]."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    return _for_page(buffer.getvalue())


def _for_page(text: str) -> str:
    """No prologue, no addresses, ids that differ between figures, colours from the page."""
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    inner = text[text.index(">", box.end()) + 1 : text.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<!--.*?-->", "", inner, flags=re.DOTALL).replace("xlink:href", "href")
    inner = re.sub(r"<style.*?</style>", "", inner, flags=re.DOTALL)  # it would apply to the whole page
    inner = re.sub(r'<g id="[^"]*">', "<g>", inner)  # names of parts, referred to by nothing
    mark = "f" + hashlib.sha256(inner.encode()).hexdigest()[:8] + "-"
    inner = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{mark}", inner)
    inner = re.sub(r"font-family: [^;\"]*;? ?", "", inner)
    inner = re.sub(r' transform="rotate\(-0 [^"]*"', "", inner)
    inner = re.sub(r"\s*\n\s*", " ", inner)
    for colour, variable in _VARIABLES.items():
        inner = inner.replace(colour, f"var(--{variable})")
    return f'<svg viewBox="{box.group(1)}">{inner}</svg>'


def _legend_above(axes: Axes, columns: int) -> None:
    """Where it cannot cover data."""
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, borderaxespad=0.2, columnspacing=1.0
    )


def loss_curve(steps: list[int], losses: list[float]) -> str:
    """Training loss over optimiser steps, logarithmic."""

    def draw(axes: Axes) -> None:
        axes.semilogy(steps, losses, color=ACCENT, linewidth=1.5)
        axes.set(xlabel="optimiser step", ylabel="training loss (mean of 50)")
        axes.grid(which="both", linewidth=0.6)

    return svg(draw)


def rates(rows: list[tuple[str, int, int, tuple[float, float]]]) -> str:
    """Bars of success rates with their intervals; rows are (label, successes, n, interval)."""

    def draw(axes: Axes) -> None:
        for place, (_, successes, count, (low, high)) in enumerate(rows):
            rate = successes / count
            axes.barh(place, rate, color=ACCENT if place == 0 else SOFT, height=0.6)
            error = [[max(rate - low, 0.0)], [max(high - rate, 0.0)]]
            axes.errorbar(rate, place, xerr=error, color=INK, capsize=4, linewidth=1.2)
            axes.text(1.03, place, f"{successes}/{count}", va="center")
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="success rate, 95 % Wilson interval")

    return svg(draw, (5.2, 0.75 + 0.55 * len(rows)))


def outcomes(
    points: NDArray[np.float64],
    success: NDArray[np.bool_],
    labels: tuple[str, str],
    *,
    same_unit: bool,
    seen_from: str = "",
) -> str:
    """One mark per episode at a place in a plane: green rings succeed, red crosses fail.

    Args:
        points: (n, 2); success: (n,).
        labels: of the two columns.
        same_unit: one scale for both axes.
        seen_from: "above" turns the plane as someone behind the robot sees it (REP-103: x away, y to the
            left); "image" lets the second column count downwards, as pixels do.
    """
    first, second = (1, 0) if seen_from == "above" else (0, 1)

    def draw(axes: Axes) -> None:
        won, lost = points[success], points[~success]
        axes.scatter(
            won[:, first],
            won[:, second],
            s=26,
            marker="o",
            linewidth=1.4,
            facecolor="none",
            edgecolor=GOOD,
            label=f"success ({len(won)})",
        )
        axes.scatter(
            lost[:, first],
            lost[:, second],
            s=26,
            marker="x",
            linewidth=1.4,
            color=BAD,
            label=f"failure ({len(lost)})",
        )
        axes.set(xlabel=labels[first], ylabel=labels[second])
        if same_unit:
            axes.set_aspect("equal", adjustable="datalim")
        if seen_from == "above":
            axes.invert_xaxis()
        if seen_from == "image":
            axes.invert_yaxis()
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
        _legend_above(axes, 2)

    return svg(draw, (3.6, 3.5))


def starts(episodes: Sequence[EpisodeResult], key: str) -> str:
    """Where the object started, coloured by outcome; ``key`` is an observation that begins with x, y [m]."""
    points = np.array([e.start[key][:2] for e in episodes], dtype=np.float64).reshape(-1, 2)
    success = np.array([e.success for e in episodes], dtype=bool)
    return outcomes(points, success, ("x [m]", "y [m]"), same_unit=True, seen_from="above")


def success_over_time(rows: Sequence[tuple[str, Sequence[float], int]]) -> str:
    """Share of all episodes that have succeeded by a time; rows are (label, times of successes [s], n)."""
    longest = max((max(times) for _, times, _ in rows if len(times)), default=1.0)

    def draw(axes: Axes) -> None:
        for place, (label, times, count) in enumerate(rows):
            ordered = np.sort(np.asarray(times, dtype=np.float64))
            x = np.concatenate([[0.0], ordered, [longest * 1.03]])
            y = np.concatenate([[0.0], np.arange(1, len(ordered) + 1), [len(ordered)]]) / count
            colour, dash = SERIES[place % len(SERIES)], ("-", "--", ":", "-.")[place % 4]
            axes.step(
                x,
                y,
                where="post",
                color=colour,
                linestyle=dash,
                linewidth=1.8,
                label=label.replace("$", r"\$"),
            )
        axes.set(xlim=(0, longest * 1.03), ylim=(0, 1.02), xlabel="time [s]", ylabel="succeeded by then")
        axes.grid(linewidth=0.6)
        if len(rows) > 1:
            _legend_above(axes, 2)

    return svg(draw, (5.2, 3.2))


def histogram(values_ms: NDArray[Any], label: str, limit_ms: float | None = None) -> str:
    """Latencies, counts logarithmic when there are many, with p50 and p99."""
    values = np.asarray(values_ms, dtype=np.float64)

    def draw(axes: Axes) -> None:
        bins = int(np.clip(np.sqrt(len(values)) * 2, 12, 60))
        axes.hist(values, bins=bins, color=ACCENT, log=len(values) > 500)
        for percentile, style in ((50, ":"), (99, "--")):
            value = float(np.percentile(values, percentile))
            axes.axvline(value, color=INK, linestyle=style, label=f"p{percentile} {value:.2f} ms")
        if limit_ms is not None:
            axes.axvline(limit_ms, color=BAD, label=f"limit {limit_ms:g} ms")
        axes.set(xlabel=label, ylabel="count")
        _legend_above(axes, 3)

    return svg(draw)


def commands(time_ns: NDArray[Any], sent: NDArray[Any], reference: NDArray[Any], names: list[str]) -> str:
    """Commands of one real-time episode; thin what the scheduler had asked for."""

    def draw(axes: Axes) -> None:
        seconds = (time_ns - time_ns[0]) * 1e-9
        for column, name in enumerate(names):
            style = "-" if column < len(SERIES) else "--"
            axes.plot(seconds, sent[:, column], linewidth=1.6, linestyle=style, label=name)
            axes.plot(seconds, reference[:, column], color=INK, linewidth=0.5)
        axes.set(xlabel="time [s]", ylabel="position [rad or m]")
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

    return svg(draw, (7.4, 3.4))

"""How a real-time run chose among its candidates: what was asked, what came of it, and a look at some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robopolicy.evaluation.plots import ACCENT, INK, SOFT, svg
from robopolicy.evaluation.report import Figure
from robopolicy.evaluation.run_files import StoredRun

MOST_LINES = 40  # candidates in one picture, the chosen and the first among them
Arrays = Mapping[str, NDArray[Any]]


def choices(run: StoredRun) -> dict[str, Any] | None:
    """The section of the page: rows of a table and the commonest notes; None where nothing was chosen."""
    if not any(_chose(episode.arrays) for episode in run.episodes):
        return None
    asked, drawn, index, draw, score = (
        np.concatenate([e.arrays[f"decision_{name}"] for e in run.episodes if _chose(e.arrays)])
        for name in ("asked", "drawn", "index", "draw_ns", "score_ns")
    )
    counts, total = run.summary["decisions"], len(index)
    rows = [
        ("decisions", f"{total}, {asked.max()} candidates asked for, {drawn.mean():.1f} drawn on average"),
        ("another than the first sample", f"{np.mean(index > 0):.1%}"),
        ("drawing, p50 / p99", _milliseconds(draw)),
        ("scoring, p50 / p99", _milliseconds(score)),
        ("fewer candidates drawn, for want of time", _share(counts["fewer_drawn"], total)),
        ("fewer candidates judged, for want of time", _share(counts["fewer_scored"], total)),
        ("no candidate with a value: the first sample", _share(counts["nan_rows"], total)),
        ("later than the deadline all the same", _share(counts.get("late", 0), total)),
        ("candidates kept in this folder", f"{run.summary['candidates_mb']:.2f} MB"),
    ]
    texts = (str(note) for e in run.episodes if _chose(e.arrays) for note in e.arrays["decision_notes"])
    notes = Counter(part.partition(":")[0] for text in texts for part in text.split("; ") if part)  # no times
    return {"rows": rows, "notes": [f"{count} × {note}" for note, count in notes.most_common(5)]}


def pictures(run: StoredRun, number: int) -> list[Figure]:
    """Of one episode: values over time, and the candidates of the decision that gained most; none where
    nothing was chosen."""
    arrays = run.episodes[number].arrays
    if not _chose(arrays) or not np.isfinite(arrays["decision_values"]).any():
        return []
    seconds = (arrays["decision_time_ns"] - arrays["time_ns"][0]) * 1e-9
    values, index = arrays["decision_values"], arrays["decision_index"]
    finite = np.isfinite(values)
    rows = np.arange(len(values))
    chosen = np.where(finite[rows, index], values[rows, index], np.nan)
    gain = np.nan_to_num(chosen - values[:, 0], nan=-np.inf)
    row = int(gain.argmax())
    text = f"Range of the candidates' values in each of {len(values)} decisions"
    figures = [Figure(_over_time(seconds, values, chosen), text)]
    candidates = arrays["decision_candidates"][row]
    usable = np.isfinite(candidates).all(axis=(1, 2))
    if not usable.any():
        return figures
    apart = np.ptp(candidates[usable], axis=0).max(axis=0)
    scale = np.maximum(np.ptp(arrays["commands"], axis=0), 1e-9)  # units differ by dimension
    column = int((apart / scale).argmax())
    name, unit = run.summary["action_names"][column], run.summary["action_units"][column]
    picture = _candidates(candidates[:, :, column], usable, int(index[row]), f"{name} [{unit}]")
    told = f"The {int(usable.sum())} candidates at {seconds[row]:.1f} s, where the choice gained most: {name}"
    return [*figures, Figure(picture, told)]


def _chose(arrays: Arrays) -> bool:
    """Whether anything was drawn to choose from, and judged."""
    return "decision_scored" in arrays and bool((arrays["decision_scored"] > 1).any())


def _over_time(seconds: NDArray[Any], values: NDArray[Any], chosen: NDArray[Any]) -> str:
    def draw(axes: Axes) -> None:
        kept = np.isfinite(values).any(axis=1)
        low, high = np.nanmin(values[kept], axis=1), np.nanmax(values[kept], axis=1)
        axes.vlines(seconds[kept], low, high, color=SOFT, linewidth=3, alpha=0.45)
        first = {"color": INK, "linestyle": "none", "marker": "_", "markersize": 9}
        axes.plot(seconds, values[:, 0], **first, label="the first sample")
        axes.plot(seconds, chosen, "o-", color=ACCENT, markersize=4, linewidth=1, label="the chosen one")
        axes.set(xlabel="time [s]", ylabel="value, sum of the scores")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return svg(draw, (5.2, 3.2))


def _candidates(lines: NDArray[Any], usable: NDArray[np.bool_], chosen: int, label: str) -> str:
    """(n, prediction_horizon) of one dimension."""
    others = [i for i in np.flatnonzero(usable).tolist() if i not in (0, chosen)]
    step = max(-(-len(others) // MOST_LINES), 1)

    def draw(axes: Axes) -> None:
        for i in others[::step]:
            axes.plot(lines[i], color=SOFT, linewidth=0.8, alpha=0.6)
        if usable[0]:
            axes.plot(lines[0], color=INK, linewidth=1.4, linestyle="--", label="the first sample")
        axes.plot(lines[chosen], color=ACCENT, linewidth=2.4, label="the chosen one")
        axes.set(xlabel="action of the chunk", ylabel=label)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return svg(draw, (5.2, 3.2))


def _milliseconds(values_ns: NDArray[Any]) -> str:
    return " / ".join(f"{np.percentile(values_ns, p) * 1e-6:.2f}" for p in (50, 99)) + " ms"


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})" if count else "never"

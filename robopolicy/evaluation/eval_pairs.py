"""The table of comparisons: every policy against the first, on the seeds both ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robopolicy.evaluation.comparison import Comparison, Report, adjust, compare_pair
from robopolicy.evaluation.statistics import Interval

if TYPE_CHECKING:
    from robopolicy.evaluation.eval_sections import Entry

COLUMNS = [
    "policy", "against", "pairs", "only this one succeeds", "only the other", "difference", "interval", "p",
]  # fmt: skip


def compare_entries(entries: Sequence[Entry]) -> Report | None:
    """Each policy with the first on the seeds they share; None where no two share any."""
    results = {entry.label: entry.episodes for entry in entries}
    baseline, *others = results
    seeds = {e.seed for e in results[baseline]}
    fitting = [other for other in others if seeds & {e.seed for e in results[other]}]
    found = adjust([compare_pair(results, baseline, other) for other in fitting])
    return Report(policies=(), comparisons=found, cochran_p=None, confidence=0.95) if found else None


def comparison_view(report: Report | None) -> dict[str, Any] | None:
    """The table's cells and the sentences that say what they mean."""
    if report is None or not report.comparisons:
        return None
    several = len(report.comparisons) > 1
    decided = any(c.decision for c in report.comparisons)
    columns = COLUMNS + (["p, corrected"] if several else []) + (["verdict"] if decided else [])
    rows = []
    for c in report.comparisons:
        cells = [c.other, c.baseline, _count(c.pairs), _count(c.gains), _count(c.losses)]
        cells += [f"{c.difference:+.3f}", _interval(c.difference_interval), _p(c.p_value)]
        rows.append(
            cells + ([_p(c.p_adjusted)] if several else []) + ([c.decision or "–"] if decided else [])
        )
    tests = ", ".join(dict.fromkeys(c.test for c in report.comparisons))
    paired = all(c.pairs is not None for c in report.comparisons)
    text = ("The same seeds on both sides. " if paired else "") + (
        f"Difference of success rates with its {report.confidence:.0%} interval; p: {tests}"
        + (", corrected by Holm's method over the rows." if several else ".")
    )
    return {"columns": columns, "rows": rows, "text": text, "means": _means(report.comparisons)}


def _means(comparisons: Sequence[Comparison]) -> list[str]:
    """Sentences on the secondary measures."""
    words = {"total_reward": "total reward", "seconds": "seconds, where both succeed"}
    return [
        f"{c.other} minus {c.baseline}, {words.get(name, name)}: {m.difference:+.3g} {_interval(m.interval)} "
        f"over {m.pairs} pairs."
        for c in comparisons
        for name, m in c.means.items()
    ]


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)


def _interval(interval: Interval) -> str:
    return f"[{interval[0]:+.3g}, {interval[1]:+.3g}]"


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"

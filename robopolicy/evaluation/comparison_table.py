"""A report of comparisons as a table for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from robopolicy.evaluation.comparison import Comparison, PolicyRow, Report
from robopolicy.evaluation.statistics import Interval


def table(report: Report) -> Table:
    """One row per policy; the first is the baseline."""
    level = f"{report.confidence:.0%}"
    result = Table(caption="; ".join(sorted({c.test for c in report.comparisons})))
    headers = ("policy", "success", f"rate [{level}]", f"difference [{level}]", "p", "p (Holm)", "verdict")
    for column, header in enumerate(headers):
        result.add_column(Text(header), justify="right" if column else "left")
    compared = {c.other: c for c in report.comparisons}
    for row in report.policies:
        cells = _cells(row, compared.get(row.name), 1 - report.confidence)
        result.add_row(*(Text(cell) for cell in cells))  # no markup: names may have brackets
    return result


def _cells(row: PolicyRow, comparison: Comparison | None, alpha: float) -> list[str]:
    cells = [row.name, f"{row.successes}/{row.count}", f"{row.rate:.3f} {_interval(row.interval)}"]
    if comparison is None:
        return [*cells, "baseline"]
    return [
        *cells,
        f"{comparison.difference:+.3f} {_interval(comparison.difference_interval, '+.3f')}",
        f"{comparison.p_value:.3g}",
        f"{comparison.p_adjusted:.3g}",
        comparison.decision or _verdict(comparison, alpha),
    ]


def _verdict(comparison: Comparison, alpha: float) -> str:
    if comparison.p_adjusted > alpha:
        return "not told apart"
    return "better" if comparison.difference > 0 else "worse"


def _interval(interval: Interval, style: str = ".3f") -> str:
    return f"[{interval[0]:{style}}, {interval[1]:{style}}]"

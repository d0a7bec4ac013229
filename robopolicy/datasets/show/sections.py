"""What the sections of a dataset page say: the gathered facts as text, tables and plots for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.specs import Specs
from robopolicy.datasets.show import dimensions, svg
from robopolicy.datasets.show.facts import Facts

MAX_INSTRUCTIONS, MAX_DIMENSIONS, MAX_FINDINGS, MAX_PLANES = 30, 64, 300, 8


@dataclass(frozen=True)
class Dimension:
    """One action dimension: its histogram and what is printed below it."""

    name: str
    unit: str
    plot: str
    low: str
    high: str
    mean: str
    deviation: str


def tiles(specs: Specs, facts: Facts) -> list[tuple[str, str, str]]:
    """(label, value, remark)"""
    steps = sum(fact["length"] for fact in facts.every.values())
    read = {row.name: row.duration for row in facts.rows}
    seconds = sum(read.get(name, fact["length"] / specs.policy_rate) for name, fact in facts.every.items())
    judged = Counter(fact["success"] for fact in facts.every.values())
    good, known = judged[True], judged[True] + judged[False]
    success = f"{100 * good / known:.0f} %" if known else "–"
    remark = f"{good} of {known} judged" if known else "nobody judged"
    if judged[None] and known:
        remark += f", {judged[None]} not"
    time = f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
    action = facts.rates["action"].hertz if "action" in facts.rates else None
    return [
        ("episodes", f"{len(facts.every):,}", ""),
        ("steps", f"{steps:,}", f"{steps / max(len(facts.every), 1):.0f} per episode"),
        ("recorded", time, f"{seconds / max(len(facts.every), 1):.1f} s per episode"),
        ("success", success, remark),
        ("policy rate", f"{specs.policy_rate:g} Hz", f"measured {action:.2f} Hz" if action else ""),
        ("robot", specs.robot or "–", ", ".join(dict.fromkeys(part.space for part in specs.action.parts))),
    ]


def instructions(facts: Facts) -> dict[str, Any]:
    counts = Counter(fact["instruction"] for fact in facts.every.values()).most_common()
    top = max((count for _, count in counts), default=1)
    shown = [(text, count, 100 * count / top) for text, count in counts[:MAX_INSTRUCTIONS]]
    return {"shown": shown, "more": len(counts) - len(shown)}


def signal_rows(specs: Specs, facts: Facts) -> list[dict[str, str]]:
    table = [
        _signal(facts, f"observation/{key}", spec.kind, spec.shape, spec.dtype, spec.units, spec.names)
        for key, spec in specs.observation.items()
    ]
    for part in specs.action.parts:
        kind = f"{part.space}, {part.reference}" + (f", frame {part.frame}" if part.frame else "")
        table.append(_signal(facts, "action", kind, (len(part.names),), "float32", part.units, part.names))
    extras = sorted(facts.extras.items())
    return table + [_signal(facts, key, "extra", shape, dtype, (), ()) for key, (shape, dtype) in extras]


def _signal(
    facts: Facts,
    name: str,
    kind: str,
    shape: tuple[int, ...],
    dtype: str,
    units: tuple[str, ...],
    names: tuple[str, ...],
) -> dict[str, str]:
    rate = facts.rates.get(name)
    hertz = rate.hertz if rate else None
    return {
        "name": name,
        "kind": kind,
        "shape": " × ".join(map(str, shape)) or "scalar",
        "dtype": dtype,
        "units": _runs(units),
        "names": ", ".join(names),
        "rate": f"{hertz:.2f} Hz" if hertz else "",
        "gap": f"{rate.longest * 1e3:.0f} ms in {rate.episode}" if rate and rate.longest else "",
    }


def _runs(units: tuple[str, ...]) -> str:
    """ "m ×3, 1 ×6" for nine units in two runs."""
    runs: list[list[Any]] = []
    for unit in units:
        if runs and runs[-1][0] == unit:
            runs[-1][1] += 1
        else:
            runs.append([unit, 1])
    return ", ".join(unit if count == 1 else f"{unit} ×{count}" for unit, count in runs)


def length_histogram(facts: Facts) -> dict[str, Any] | None:
    lengths = np.array([fact["length"] for fact in facts.every.values()])
    if not len(lengths):
        return None
    width = -(-int(np.ptp(lengths) + 1) // 40)  # whole steps per bar
    edges = np.arange(lengths.min(), lengths.max() + width + 1, width)
    counts, _ = np.histogram(lengths, bins=edges)
    quantiles = np.percentile(lengths, (5, 50, 95))
    return {
        "plot": svg.bars(counts, 640, 110),
        "low": int(lengths.min()),
        "high": int(lengths.max()),
        "most": int(counts.max()),
        "width": width,
        "quantiles": [f"{value:.0f}" for value in quantiles],
    }


def action_cards(specs: Specs, action: NDArray[np.float32]) -> list[Dimension]:
    if not len(action):
        return []
    found = []
    for column, (name, unit) in enumerate(zip(specs.action.names[:MAX_DIMENSIONS], specs.action.units)):
        values = action[:, column].astype(np.float64)
        low, high = values.min(), values.max()
        counts, _ = np.histogram(values, bins=32, range=(low, high if high > low else low + 1))
        texts = [svg.number(value) for value in (low, high, values.mean(), values.std())]
        found.append(Dimension(name, unit, svg.bars(counts), *texts))
    return found


def plane_plots(facts: Facts) -> list[dict[str, str]]:
    found = []
    for plane, points, starts, ends in facts.positions[:MAX_PLANES]:
        ranges = [
            f"{axis} {svg.number(p.min())} … {svg.number(p.max())} {plane.unit}"
            for axis, p in zip("xy", points.T)
        ]
        plot = svg.density(points, starts, ends, y_down=plane.unit == "px")
        found.append({"title": plane.title, "plot": plot, "range": ", ".join(ranges)})
    return found


def episode_rows(facts: Facts) -> list[dict[str, Any]]:
    """Sparklines share one scale, so that episodes compare."""
    activity = [row.activity for row in facts.rows if len(row.activity)]
    top = float(np.percentile(np.concatenate(activity), 99)) if activity else 0.0
    return [{"row": row, "spark": svg.line(row.activity / (top or 1.0))} for row in facts.rows]


def finding_rows(findings: list[Any]) -> dict[str, Any]:
    """Told by their order: the caller's is kept, as it ranks them."""
    rows = [
        {
            "severity": str(getattr(finding.severity, "value", finding.severity)),
            "check": finding.check,
            "episode": finding.episode or "",
            "key": finding.key or "",
            "message": finding.message,
        }
        for finding in findings
    ]
    return {
        "shown": rows[:MAX_FINDINGS],
        "total": len(rows),
        "counts": Counter(row["severity"] for row in rows),
    }


def stats_tables(specs: Specs, stats: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    tables = []
    for signal, numbers in stats.items():
        columns = {what: np.asarray(values, dtype=np.float64).reshape(-1) for what, values in numbers.items()}
        size = max((len(values) for values in columns.values()), default=0)
        columns = {what: values for what, values in columns.items() if len(values) == size}
        spec = specs.observation.get(signal.removeprefix("observation/"))
        labels = list(specs.action.names) if signal == "action" else []
        if spec is not None:
            labels = dimensions.labels(spec.shape, spec.names)
        if len(labels) != size:
            labels = [str(place) for place in range(size)]
        rows = [
            (label, [svg.number(values[place]) for values in columns.values()])
            for place, label in enumerate(labels[:MAX_DIMENSIONS])
        ]
        tables.append({"signal": signal, "columns": list(columns), "rows": rows})
    return tables

"""How long things took: until success, per inference, and what the evaluation spent its time on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from robopolicy.evaluation import plots
from robopolicy.evaluation.report import Figure

if TYPE_CHECKING:
    from robopolicy.evaluation.eval_sections import Entry

MOST_HISTOGRAMS = 4
PARTS = ("physics", "render", "environment", "policy")


def plots_of_time(entries: Sequence[Entry]) -> list[Figure]:
    """Success over time in one plot, then the latency of each policy's inference."""
    rows = [(e.label, [r.seconds for r in e.episodes if r.success], len(e.episodes)) for e in entries]
    found = []
    if any(times for _, times, _ in rows):
        words = "; ".join(f"{label}: {_median(times)}" for label, times, _ in rows)
        caption = f"Share of all episodes that have succeeded by a time. Median time to success: {words}."
        found.append(Figure(plots.success_over_time(rows), caption))
    for entry in entries[:MOST_HISTOGRAMS]:
        timing = entry.evaluation.timing
        if timing is None or not timing.inference_ms:
            continue
        p50, p99 = np.percentile(timing.inference_ms, (50, 99))
        each = f" of {timing.inference_batch} rows" if timing.inference_batch > 1 else ""
        who = f"{entry.label}: " if len(entries) > 1 else ""
        calls = f"{len(timing.inference_ms)} inferences{each}"
        caption = f"{who}{calls}: p50 {p50:.1f} ms, p99 {p99:.1f} ms."
        found.append(Figure(plots.histogram(np.array(timing.inference_ms), "one inference [ms]"), caption))
    return found


def _median(times: Sequence[float]) -> str:
    return f"{np.median(times):.1f} s" if len(times) else "never"


def shares(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A bar of parts for every policy whose evaluation was timed."""
    found = []
    for entry in entries:
        timing = entry.evaluation.timing
        if timing is None:
            continue
        parts = [
            {
                "name": name,
                "colour": f"var(--series-{place})",
                "percent": round(100 * share, 2),
                "text": f"{share:.0%}",
            }
            for place, name in enumerate(PARTS)
            if (share := getattr(timing, f"share_{name}"))
        ]
        if not parts:
            continue
        who = f"{entry.label}: " if len(entries) > 1 else ""
        title = f"{who}{timing.steps_per_s:.0f} steps/s, {timing.wall_seconds:.0f} s in all"
        text = "Share of the time: " + ", ".join(f"{p['name']} {p['text']}" for p in parts)
        found.append({"title": title, "parts": parts, "text": text})
    return found

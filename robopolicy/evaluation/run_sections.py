"""What the page of a real-time run says, section by section, ready for its template."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robopolicy.evaluation import plots, run_lines
from robopolicy.evaluation.report import Figure
from robopolicy.evaluation.run_files import RunEpisode, StoredRun
from robopolicy.evaluation.statistics import wilson_interval

MOST_DRAWN = 10  # episodes with time series, those that went wrong first
LATE_MS = 2.0  # lateness p99 that a control loop should keep to


def lead(run: StoredRun) -> str:
    count = len(run.episodes)
    rate = run.summary["control_rate_asked_hz"]
    robot = f" on {run.summary['robot']}" if run.summary.get("robot") else ""
    return f"{count} episode{'s' * (count > 1)}{robot}, commands at {rate:g} Hz, {run.summary['source']}"


def notices(run: StoredRun) -> list[str]:
    """What went wrong, before anything else."""
    found = [
        f"Episode {number} ended in a fault: {episode.facts['reason']}"
        for number, episode in enumerate(run.episodes)
        if episode.facts["fault"]
    ]
    asked = int(run.summary.get("realtime_episodes", len(run.episodes)))
    if asked > len(run.episodes):
        found.append(f"{asked} episodes were asked for, {len(run.episodes)} ran.")
    return found


def tiles(run: StoredRun) -> list[tuple[str, str, bool]]:
    """(label, value, whether it is as it should be)."""
    facts = [episode.facts for episode in run.episodes]
    won, count, faults = sum(f["success"] for f in facts), len(facts), sum(f["fault"] for f in facts)
    low, high = wilson_interval(won, count)
    missed = sum(f["missed_ticks"] for f in facts)
    lateness = percentile_ms(run, "lateness_ns", 99)
    passed = 1 - float(np.mean(run.pooled("interventions") != 0))
    inference = [percentile_ms(run, "inference_ns", p) for p in (50, 99)]
    return [
        (f"episodes that succeed, 95 % interval {low:.2f} to {high:.2f}", f"{won}/{count}", True),
        ("faults", str(faults), not faults),
        ("missed control ticks", str(missed), not missed),
        ("lateness of a control tick, p99", f"{lateness:.2f} ms", not lateness > LATE_MS),
        ("inference p50 / p99", " / ".join(f"{value:.1f}" for value in inference) + " ms", True),
        ("commands sent as they were asked for", f"{passed:.1%}", True),
    ]


def percentile_ms(run: StoredRun, name: str, percentile: float) -> float:
    values = run.pooled(name)
    return float(np.percentile(values, percentile)) * 1e-6 if len(values) else float("nan")


def episode_rows(run: StoredRun) -> list[dict[str, Any]]:
    """The table of all episodes; anchors only to those that are drawn."""
    shown = set(drawn(run))
    rows = []
    for number, episode in enumerate(run.episodes):
        facts, arrays = episode.facts, episode.arrays
        late = arrays["lateness_ns"]
        rows.append(
            {
                "number": number,
                "anchor": f"episode-{number}" if number in shown else "",
                "kind": "good" if facts["success"] else ("bad" if facts["fault"] else "soft"),
                "outcome": "fault" if facts["fault"] else outcome(facts),  # its reason stands above
                "cells": [
                    str(facts["seed"]),
                    f"{seconds(arrays)[-1]:.1f}" if len(arrays["time_ns"]) else "0",
                    str(len(arrays["inference_ns"])),
                    str(facts["missed_ticks"]),
                    f"{np.percentile(late, 99) * 1e-6:.2f}" if len(late) else "–",
                    f"{np.mean(arrays['interventions'] != 0):.0%}" if len(late) else "–",
                    str(facts.get("restarts", 0)),
                ],
            }
        )
    return rows


EPISODE_COLUMNS = (
    "seed", "time [s]", "chunks", "missed ticks", "lateness p99 [ms]", "ticks changed", "worker restarts",
)  # fmt: skip


def outcome(facts: Mapping[str, Any]) -> str:
    if facts["success"]:
        return "success"
    return f"fault: {facts['reason']}" if facts["fault"] else str(facts["reason"])


def drawn(run: StoredRun) -> list[int]:
    """Numbers of the episodes with time series: faults, then failures, then the others; in their order."""
    order = sorted(
        (n for n, e in enumerate(run.episodes) if len(e.arrays["time_ns"]) > 1),
        key=lambda n: (not run.episodes[n].facts["fault"], run.episodes[n].facts["success"], n),
    )
    return sorted(order[:MOST_DRAWN])


def seconds(arrays: Mapping[str, Any]) -> Any:
    """(n,) deadlines from the first one [s]."""
    return (arrays["time_ns"] - arrays["time_ns"][0]) * 1e-9


def episode_pictures(run: StoredRun, number: int) -> dict[str, Any]:
    """Time series of one episode: a picture for each joint, and one for the reasons of interventions."""
    episode = run.episodes[number]
    arrays, facts = episode.arrays, episode.facts
    time = seconds(arrays)
    tick_s = 1 / float(run.summary["control_rate_asked_hz"])
    shaded = run_lines.spans(time, arrays["interventions"] != 0, tick_s)
    joins = ((arrays["joins_ns"] - arrays["time_ns"][0]) * 1e-9).tolist()
    joints = [
        {
            "title": name,
            "unit": unit,
            "svg": run_lines.series(
                time, arrays["commands"][:, i], arrays["references"][:, i], shaded, joins
            ),
        }
        for i, (name, unit) in enumerate(zip(run.summary["action_names"], run.summary["action_units"]))
    ]
    reasons = [
        (name, run_lines.spans(time, (arrays["interventions"] >> bit) & 1 == 1, tick_s))
        for bit, name in enumerate(run.summary["intervention_reasons"])
    ]
    active = [(name, found) for name, found in reasons if found]
    return {
        "number": number,
        "outcome": outcome(facts),
        "kind": "good" if facts["success"] else ("bad" if facts["fault"] else "soft"),
        "facts": _episode_facts(episode),
        "joints": joints,
        "lanes": run_lines.lanes(active, float(time[-1])) if active else "",
        "lanes_text": ", ".join(f"{name} {len(found)} times" for name, found in active),
    }


def _episode_facts(episode: RunEpisode) -> list[tuple[str, str]]:
    facts = episode.facts
    rows = [("seed", str(facts["seed"]))]
    for label, key in (
        ("interventions [ticks]", "interventions"),
        ("scheduler", "scheduler"),
        ("faults", "faults"),
    ):
        found = {k: v for k, v in facts.get(key, {}).items() if v}
        if found:
            rows.append((label, ", ".join(f"{k} {v}" for k, v in found.items())))
    if facts.get("failed_inferences"):
        texts = Counter(facts["failed_inferences"])
        rows.append(("failed inferences", "; ".join(f"{n} × {text}" for text, n in texts.most_common(3))))
    if facts.get("stale_responses"):
        rows.append(("stale answers dropped", str(facts["stale_responses"])))
    if facts.get("realtime"):
        rows.append(("operating system", "; ".join(facts["realtime"])))
    return rows


def timing(run: StoredRun) -> tuple[list[Figure], list[tuple[str, list[str]]]]:
    """Histograms, and a table of their percentiles [ms]."""
    period_ms = 1e3 / float(run.summary["control_rate_asked_hz"])
    step_ms = 1e3 / float(run.summary["policy_rate_hz"])
    figures, rows = [], []
    for name, label, caption, limit in (
        ("lateness_ns", "lateness of a control tick", "Start of each tick after its deadline", period_ms),
        ("busy_ns", "work in a control tick", "From each tick's start to its end", period_ms),
        ("inference_ns", "inference", "Computing of each chunk, without waiting", step_ms),
        ("delay_ns", "observation to use", "From each chunk's observation to its first command", None),
        ("observation_age_ns", "oldest observation", "Age of the oldest observation at a request", None),
    ):
        values = run.pooled(name) * 1e-6
        if not len(values):
            continue
        rows.append((label, [f"{np.percentile(values, p):.2f}" for p in (50, 95, 99, 100)]))
        if name in ("lateness_ns", "inference_ns", "delay_ns"):
            inside = limit if limit is not None and values.max() > 0.5 * limit else None
            if inside is not None:
                caption += "; red: " + ("a control period" if name == "lateness_ns" else "a policy period")
            figures.append(Figure(plots.histogram(values, f"{label} [ms]", inside), caption))
    return figures, rows


def interventions(run: StoredRun) -> list[tuple[str, str, str, str]]:
    """(reason, ticks, share of all ticks, episodes), the commonest first."""
    bits, ticks = run.pooled("interventions"), max(len(run.pooled("interventions")), 1)
    rows = []
    for bit, name in enumerate(run.summary["intervention_reasons"]):
        counted = int(((bits >> bit) & 1).sum())
        where = sum(bool(((e.arrays["interventions"] >> bit) & 1).any()) for e in run.episodes)
        if counted:
            rows.append((counted, name, where))
    return [
        (name, str(counted), f"{counted / ticks:.2%}", f"{where} of {len(run.episodes)}")
        for counted, name, where in sorted(rows, reverse=True)
    ]


def configuration(run: StoredRun) -> list[tuple[str, list[tuple[str, str]]]]:
    """Named groups of settings, as they were used."""
    groups: list[tuple[str, Any]] = [("command line", run.config)]
    groups += [
        (key.removesuffix("_config").replace("_", " "), run.summary[key])
        for key in sorted(run.summary)
        if key.endswith("_config") and run.summary[key]
    ]
    return [(name, _flat(tree)) for name, tree in groups]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            many = isinstance(value, Sequence) and not isinstance(value, str)
            rows.append((f"{prefix}{key}", ", ".join(map(_setting, value if many else [value])) or "–"))
    return rows


def _setting(value: Any) -> str:
    return "–" if value in ("", None) else str(value)


def command(run: StoredRun) -> str:
    return shlex.join(str(word) for word in run.provenance.get("command", []))


def provenance(run: StoredRun) -> list[tuple[str, str]]:
    versions = run.provenance.get("versions", {})
    return [
        ("policy", f"{run.summary['source']}, digest {run.summary['bundle_digest'] or 'unknown'}"),
        ("revision", str(run.provenance.get("git_revision") or "unknown")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]

"""What the evaluation page says, section by section, ready for its template."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.evaluation import plots, varied
from robopolicy.evaluation.eval_films import Films, anchor
from robopolicy.evaluation.report import Figure
from robopolicy.evaluation.results import EpisodeResult, Summary
from robopolicy.evaluation.start_states import start_planes
from robopolicy.evaluation.statistics import wilson_interval
from robopolicy.evaluation.stored import Evaluation

MOST_MARKS = 400
MOST_WORST = 24
MOST_MAXIMA = 3
MOST_STARTS = 8
HIGH = 0.7  # success rate above which a cell's text takes the other colour


@dataclass(frozen=True)
class Entry:
    """One evaluation on the page: its name for people and the folder that holds its films."""

    label: str
    folder: Path
    evaluation: Evaluation

    @property
    def episodes(self) -> tuple[EpisodeResult, ...]:
        return self.evaluation.episodes


def lead(entries: Sequence[Entry]) -> str:
    counts = sorted({len(entry.episodes) for entry in entries})
    count = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    who = f"{len(entries)} policies, {count} episodes each" if len(entries) > 1 else f"{count} episodes"
    days = sorted({entry.evaluation.started[:10] for entry in entries})
    return f"{who}, {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "")


def notices(entries: Sequence[Entry]) -> list[str]:
    """What a reader must know before believing a difference."""
    found = []
    records = [entry.evaluation for entry in entries]
    for what, values in {
        "environment": {_environment(e) for e in records},
        "success predicate": {e.success_predicate for e in records},
    }.items():
        if len(values) > 1:
            found.append(f"The {what} is not the same for all: success rates are not comparable.")
    if len({tuple(sorted(e.seed for e in entry.episodes)) for entry in entries}) > 1:
        found.append("The policies ran on different seeds; the paired comparison uses the shared ones.")
    for text, counted in {
        "ended because physics broke down; they count as failures": [
            sum(e.unstable for e in entry.episodes) for entry in entries
        ],
        "began anew (a dead process, or a redone trial); each counts once": [
            sum(e.restarts > 0 for e in entry.episodes) for entry in entries
        ],
    }.items():
        if any(counted):
            share = ", ".join(f"{entry.label} {n}" for entry, n in zip(entries, counted) if n)
            which = f" ({share})" if len(entries) > 1 else ""
            found.append(f"{sum(counted)} of {sum(len(e.episodes) for e in entries)} episodes{which} {text}.")
    return found


def declared(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Success, stopping rule and environment; one line where all agree, else one per policy."""
    rows = []
    for name, texts in (
        ("Success means", [e.evaluation.success_predicate for e in entries]),
        ("Stopping rule", [e.evaluation.stopping.text for e in entries]),
        ("Environment", [_environment(e.evaluation) for e in entries]),
        ("Episodes", [_seeds(e.evaluation) for e in entries]),
    ):
        if len(set(texts)) == 1:
            rows.append((name, texts[0]))
        else:
            rows += [(f"{name}, {entry.label}", text) for entry, text in zip(entries, texts)]
    return rows


def _environment(evaluation: Evaluation) -> str:
    options = ", ".join(f"{k}={v}" for k, v in evaluation.environment.options.items())
    return evaluation.environment.name + (f" ({options})" if options else "")


def _seeds(evaluation: Evaluation) -> str:
    seeds = [e.seed for e in evaluation.episodes]
    ran = f"{len(seeds)}, seeds {min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"1, seed {seeds[0]}"
    return f"{ran}; the policy's noise seed {evaluation.noise_seed}"


def rates(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {"label": entry.label, **rate(sum(e.success for e in entry.episodes), len(entry.episodes))}
        for entry in entries
    ]


def rate(successes: int, count: int) -> dict[str, Any]:
    """A bar's figures; percentages are for the style sheet."""
    if not count:
        return {"successes": 0, "count": 0}
    low, high = wilson_interval(successes, count)
    share = successes / count
    return {
        "successes": successes,
        "count": count,
        "rate": round(100 * share, 2),
        "rate_text": f"{share:.3f}",
        "low": round(100 * low, 2),
        "width": round(100 * (high - low), 2),
        "interval": f"{low:.3f}, {high:.3f}",
        "mix": mix(share),
        "high": share > HIGH,
        "text": f"{successes} of {count} succeed, 95 % interval {low:.2f} to {high:.2f}",
    }


def mix(share: float) -> int:
    """Percent of colour in a cell: leaves out the middle, on which neither text colour can be read."""
    return round(60 * share / HIGH) if share <= HIGH else round(82 + 18 * (share - HIGH) / (1 - HIGH))


def strips(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A mark for each episode in the order of the seeds; nothing where there would be too many."""
    seeds = sorted({e.seed for entry in entries for e in entry.episodes})
    if len(seeds) > MOST_MARKS:
        return []
    found = []
    for entry in entries:
        by_seed = {e.seed: e for e in entry.episodes}
        marks = [_mark(seed, by_seed.get(seed)) for seed in seeds]
        won = sum(e.success for e in entry.episodes)
        found.append(
            {"label": entry.label, "marks": marks, "text": f"{entry.label}: {won} of {len(by_seed)} succeed"}
        )
    return found


def _mark(seed: int, episode: EpisodeResult | None) -> dict[str, str]:
    if episode is None:
        return {"kind": "none", "text": f"seed {seed}: did not run"}
    kind = "yes" if episode.success else ("off" if episode.unstable else "no")
    return {"kind": kind, "text": f"seed {seed}: {outcome(episode)}, {episode.seconds:.1f} s"}


def outcome(episode: EpisodeResult) -> str:
    return "success" if episode.success else ("unstable physics" if episode.unstable else "failure")


def results(entries: Sequence[Entry]) -> dict[str, Any]:
    """Means with their intervals; what went wrong in a technical sense is counted apart."""
    summaries = [entry.evaluation.summary for entry in entries]
    maxima = sorted({key for s in summaries for key in s.maxima})[:MOST_MAXIMA]
    columns = ["mean return", "mean of largest reward", *(f"mean of largest {key}" for key in maxima)]
    columns += ["mean time to success", "unstable", "restarts"]
    rows = []
    for entry, s in zip(entries, summaries):
        cells = [_mean(s.mean_return, s.mean_return_interval), _mean(s.max_reward, s.max_reward_interval)]
        cells += [_mean(*s.maxima[key]) if key in s.maxima else "–" for key in maxima]
        cells.append(_seconds(s))
        rows.append((entry.label, [*cells, str(s.unstable), str(s.restarts)]))
    return {"columns": columns, "rows": rows}


def _seconds(s: Summary) -> str:
    if s.seconds_to_success is None or s.seconds_to_success_interval is None:
        return "–"
    low, high = s.seconds_to_success_interval
    return f"{s.seconds_to_success:.1f} s [{low:.1f}, {high:.1f}]"


def _mean(mean: float, interval: tuple[float, float]) -> str:
    return f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def conditions(entries: Sequence[Entry]) -> dict[str, list[dict[str, Any]]]:
    """Heat-maps and bars over what was varied; the same bins for every policy."""
    maps, bars = varied.choose(
        [e for entry in entries for e in entry.episodes], in_map=min(len(entry.episodes) for entry in entries)
    )
    several = len(entries) > 1
    heat: list[dict[str, Any]] = []
    for m in maps:
        tables = [(entry.label, varied.counts(entry.episodes, m.down, m.across)) for entry in entries]
        panels = [
            {
                "label": label if several else "",
                "rows": [
                    (name, [rate(*map(int, cell)) for cell in row]) for name, row in zip(m.down.labels, table)
                ],
            }
            for label, table in tables
        ]
        names = {"down": m.down.name, "across": m.across.name, "title": f"{m.down.name} and {m.across.name}"}
        heat.append({**names, "columns": m.across.labels, "panels": panels})
    return {"maps": heat, "condition_bars": [_bars(entries, axis, several) for axis in bars]}


def _bars(entries: Sequence[Entry], axis: varied.Axis, several: bool) -> dict[str, Any]:
    panels = []
    for entry in entries:
        cells = varied.counts(entry.episodes, axis)[:, 0]
        rows = [{"label": name, **rate(*map(int, cell))} for name, cell in zip(axis.labels, cells)]
        panels.append({"label": entry.label if several else "", "rows": rows})
    return {"name": axis.name, "panels": panels}


def starts(entries: Sequence[Entry]) -> list[Figure]:
    """First observations in a plane, coloured by outcome; the planes of the first policy for all."""
    found = []
    most = 2 if len(entries) == 1 else 1
    for entry in entries[:MOST_STARTS]:
        success = np.array([e.success for e in entry.episodes], dtype=bool)
        for plane in start_planes(entry.evaluation.policy.specs.specs, entry.episodes, most):
            drawing = plots.outcomes(
                plane.points,
                success,
                plane.labels,
                same_unit=bool(plane.seen_from),
                seen_from=plane.seen_from,
            )
            who = f"{entry.label}: " if len(entries) > 1 else ""
            view = ", seen from above" if plane.seen_from == "above" else ""
            found.append(
                Figure(drawing, f"{who}{plane.title} at the start{view}; rings succeed, crosses fail.")
            )
    return found


def worst(entries: Sequence[Entry], films: Films) -> list[dict[str, Any]]:
    """Episodes to look at first, a few of each policy."""
    rows = []
    for place, entry in enumerate(entries):
        order = sorted(
            entry.episodes,
            key=lambda e: (e.success, not e.unstable, -e.seconds if e.success else e.max_reward, e.seed),
        )
        for e in order[: max(3, min(10, MOST_WORST // len(entries)))]:
            name = anchor(place, e.seed)
            rows.append(
                {
                    "label": entry.label,
                    "seed": e.seed,
                    "success": e.success,
                    "outcome": outcome(e) + (f", {e.restarts} restarts" if e.restarts else ""),
                    "reward": f"{e.max_reward:.3f}",
                    "seconds": f"{e.seconds:.1f}",
                    "conditions": varied.shown(e.conditions),
                    "anchor": name if name in films.anchors else "",
                    "film": e.video or "–",
                }
            )
    return rows


def remarks(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    return [
        (entry.label, seed, text)
        for entry in entries
        for seed, text in sorted(entry.evaluation.notes.items(), key=lambda item: int(item[0]))
    ]


def commands(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """The exact command of each evaluation, once where several came from one."""
    texts = [shlex.join(entry.evaluation.command) for entry in entries]
    if len(set(texts)) == 1:
        return [{"label": "", "command": texts[0]}]
    return [{"label": entry.label, "command": text} for entry, text in zip(entries, texts)]


def provenance(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    rows = []
    for entry in entries:
        e = entry.evaluation
        who = f"{entry.label}: " if len(entries) > 1 else ""
        rows += [
            (f"{who}policy", f"{e.policy.label}, SHA-256 {e.policy.digest or 'unknown'}"),
            (f"{who}ran", f"{e.started} to {e.ended}"),
        ]
        if e.selection is not None:
            rows.append((f"{who}chunks", e.selection.in_words()))
    for name, texts in (
        ("revision", [e.evaluation.git_revision or "unknown" for e in entries]),
        ("versions", [", ".join(f"{k} {v}" for k, v in e.evaluation.versions.items()) for e in entries]),
    ):
        rows += [(name, text) for text in dict.fromkeys(texts)]
    return rows

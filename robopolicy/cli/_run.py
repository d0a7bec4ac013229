"""What ``robopolicy run`` writes, laid out as ``evaluation.run_files`` says."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.provenance import write_json
from robopolicy.core.serial import to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.run_files import SUMMARY, episode_file
from robopolicy.runtime import RunResult, percentile_ms
from robopolicy.runtime.control.decisions import Decisions
from robopolicy.runtime.safety.filter import REASONS

HEAVY = ("torch", "diffusers", "zarr")


class RunFolder:
    """Collects episodes; each one's arrays are on disk before the next begins.

    Args:
        folder: made by ``create_run``.
        facts: of the whole run: task, robot, source, digest, configurations.
        specs: of the policy.
        control_rate: that was asked for [Hz].
        episodes: that were asked for.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        specs: PolicySpecs,
        *,
        control_rate: float,
        episodes: int,
    ) -> None:
        self._folder, self._asked, self._control_rate = folder, episodes, control_rate
        action = specs.specs.action
        self._facts = {
            **facts,
            "control_rate_asked_hz": control_rate,
            "policy_rate_hz": specs.specs.policy_rate,
            "action_names": list(action.names),
            "action_units": list(action.units),
            "intervention_reasons": list(REASONS),
        }
        self._results: list[RunResult] = []
        self._episodes: list[dict[str, Any]] = []

    def add(self, result: RunResult, seed: int) -> None:
        """Write one episode's arrays."""
        name = episode_file(len(self._results))
        np.savez(self._folder / name, **arrays(result))
        # Candidates are on disk now, and would fill the memory.
        self._results.append(replace(result, decisions=result.decisions.without_candidates))
        self._episodes.append({"file": name, "seed": seed, **facts(result)})

    def finish(self) -> dict[str, Any]:
        """Write and return the figures over all episodes."""
        results = self._results
        summary = {**summarise_runs(results, self._asked), **self._facts, "episodes": self._episodes}
        write_json(self._folder / SUMMARY, summary)
        return summary


def arrays(result: RunResult) -> dict[str, Any]:
    """Per tick, per chunk, per request and per decision."""
    names = (
        *("time_ns", "lateness_ns", "busy_ns", "references", "commands"),
        *("joins_ns", "inference_ns", "delay_ns", "observation_age_ns"),
    )
    return {
        **{name: getattr(result, name) for name in names},
        "interventions": result.intervention_bits(REASONS),
        **result.decisions.arrays,
    }


def facts(result: RunResult) -> dict[str, Any]:
    """Of one episode; plain values."""
    names = (
        *("fault", "reason", "ticks", "missed_ticks", "stale_responses", "restarts"),
        *("failed_inferences", "interventions", "scheduler", "faults", "realtime"),
    )
    return {
        "success": result.reason == "success",
        **{name: to_tree(getattr(result, name)) for name in names},
        "decisions": dict(result.decisions.totals),
    }


def summarise_runs(results: list[RunResult], episodes: int) -> dict[str, Any]:
    """Figures over all episodes: pooled percentiles, counts, and the rate that was really achieved [Hz]."""
    lateness, inference = _pool(results, "lateness_ns"), _pool(results, "inference_ns")
    spans = sum(float(r.time_ns[-1] - r.time_ns[0]) * 1e-9 for r in results if len(r.time_ns) > 1)
    periods = sum(len(r.time_ns) - 1 for r in results if len(r.time_ns) > 1)
    return {
        "realtime_episodes": episodes,
        "realtime_successes": sum(r.reason == "success" for r in results),
        "control_rate_hz": periods / spans if spans else 0.0,
        "control_lateness_p50_ms": percentile_ms(lateness, 50),
        "control_lateness_p99_ms": percentile_ms(lateness, 99),
        "control_lateness_max_ms": percentile_ms(lateness, 100),
        "missed_ticks": sum(r.missed_ticks for r in results),
        "ticks": len(lateness),
        "inference_p50_ms": percentile_ms(inference, 50),
        "inference_p99_ms": percentile_ms(inference, 99),
        "delay_p95_ms": percentile_ms(_pool(results, "delay_ns"), 95),
        "faults": dict(sum((Counter(r.faults) for r in results), Counter())),
        "restarts": sum(r.restarts for r in results),
        "reasons": [r.reason for r in results],
        "interventions": [to_tree(r.interventions) for r in results],
        "scheduler": [to_tree(r.scheduler) for r in results],
        **choosing(results),
        "heavy_modules_loaded": [name for name in HEAVY if name in sys.modules],
    }


def choosing(results: list[RunResult]) -> dict[str, Any]:
    """What came of drawing and judging candidates, over all episodes; the size is that of those kept [MB]."""
    totals = sum((Counter(r.decisions.totals) for r in results), Counter())
    count = totals["decisions"]
    draw, score = (
        np.concatenate([getattr(r.decisions, name) for r in results] or [np.zeros(0, dtype=np.int64)])
        for name in ("draw_ns", "score_ns")
    )
    return {
        "decisions": {name: totals[name] for name in Decisions().totals},
        "mean_drawn": totals["candidates_drawn"] / count if count else 0.0,
        "share_other_than_first": totals["other_than_first"] / count if count else 0.0,
        "draw_p50_ms": percentile_ms(draw, 50),
        "draw_p99_ms": percentile_ms(draw, 99),
        "score_p50_ms": percentile_ms(score, 50),
        "score_p99_ms": percentile_ms(score, 99),
        "candidates_mb": sum(r.decisions.candidates_bytes for r in results) * 1e-6,
    }


def _pool(results: list[RunResult], name: str) -> Any:
    return np.concatenate([getattr(r, name) for r in results] or [np.zeros(0, dtype=np.int64)])

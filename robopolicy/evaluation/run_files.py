"""What ``robopolicy run`` leaves in its folder, read back strictly for the report.

    provenance.json    written by ``create_run``: command, git_revision, versions, seed
    config.json        the command's arguments
    realtime.json      figures over all episodes, and
        task, robot                 names; robot may be empty
        source                      the bundle's folder, or the URL of the server it ran on
        bundle_digest               SHA-256 (hex)
        control_rate_asked_hz, policy_rate_hz
        action_names, action_units  one per dimension
        intervention_reasons        bit i of ``interventions`` means the i-th of these
        scheduler_config, safety_config, worker_config   as trees; shown as they are
        episodes                    one mapping per episode that ran, in order:
            file                    "episode_000.npz"
            seed, success, fault, reason, ticks, missed_ticks
            interventions           reason to number of ticks
            scheduler               ``SchedulerCounters`` as a mapping
            failed_inferences       texts
            stale_responses
    episode_000.npz    of each episode, n ticks (braking included), A action dimensions:
        time_ns          (n,) deadline of each tick
        lateness_ns      (n,) start of the tick minus its deadline
        busy_ns          (n,) from its start to its end
        references       (n, A) what the scheduler asked for
        commands         (n, A) what was sent
        interventions    (n,) uint32 bit mask; 0 where the command passed as it was
        joins_ns         (j,) deadlines of the ticks at which a chunk was taken up
        inference_ns     (c,) of each chunk, time spent computing
        delay_ns         (c,) of each chunk, from observation to use
        observation_age_ns (r,) of each request
      and where candidates were drawn, of each decision (d, at most K candidates):
        decision_time_ns, decision_index, decision_asked, decision_drawn, decision_scored, decision_draw_ns,
        decision_score_ns, decision_deadline_ns, decision_notes   (d,) see ``runtime.control.decisions``
        decision_candidates   (d, K, prediction_horizon, A) float32; NaN beyond those drawn
        decision_values       (d, K) what they were judged by; NaN where they were not

Whatever else the files hold is left alone.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import RobopolicyError

SUMMARY = "realtime.json"
PER_TICK = ("time_ns", "lateness_ns", "busy_ns", "references", "commands", "interventions")
PER_CHUNK = ("joins_ns", "inference_ns", "delay_ns", "observation_age_ns")
KEYS = (
    "task", "source", "bundle_digest", "control_rate_asked_hz", "policy_rate_hz", "action_names",
    "action_units", "intervention_reasons", "episodes",
)  # fmt: skip
EPISODE_KEYS = ("file", "seed", "success", "fault", "reason", "ticks", "missed_ticks", "interventions")


@dataclass(frozen=True)
class RunEpisode:
    """One episode: its facts of ``realtime.json`` and the arrays of its file."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class StoredRun:
    """A real-time run as its folder holds it."""

    folder: Path
    summary: Mapping[str, Any]
    provenance: Mapping[str, Any]
    config: Mapping[str, Any]
    episodes: tuple[RunEpisode, ...]

    def pooled(self, name: str) -> NDArray[Any]:
        """One array of all episodes, end to end."""
        return np.concatenate([episode.arrays[name] for episode in self.episodes])


def episode_file(number: int) -> str:
    """Name of the arrays of the episode with this number, from 0."""
    return f"episode_{number:03d}.npz"


def is_run(folder: Path) -> bool:
    """Whether a real-time run lies there."""
    return (folder / SUMMARY).is_file()


def read_run(folder: Path) -> StoredRun:
    """Read a folder of ``robopolicy run``.

    Raises:
        RobopolicyError: a file is missing, damaged or of another release; names it and what is wrong.
    """
    summary = _read_json(folder / SUMMARY)
    _need(folder / SUMMARY, summary, KEYS)
    if not summary["episodes"]:
        raise RobopolicyError(f"{folder / SUMMARY}: no episode ran")
    episodes = []
    for facts in summary["episodes"]:
        _need(folder / SUMMARY, facts, EPISODE_KEYS)
        arrays = _read_arrays(folder / Path(facts["file"]).name, len(summary["action_names"]))
        episodes.append(RunEpisode(facts, arrays))
    return StoredRun(
        folder,
        summary,
        _read_json(folder / "provenance.json"),
        _read_json(folder / "config.json"),
        tuple(episodes),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RobopolicyError(f"cannot read {path}: {error}") from error
    if not isinstance(tree, dict):
        raise RobopolicyError(f"{path} holds no mapping")
    return tree


def _need(path: Path, tree: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in tree]
    if missing:
        raise RobopolicyError(
            f"{path} lacks {', '.join(missing)}: damaged, or of another release; run it again"
        )


def _read_arrays(path: Path, action_dim: int) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RobopolicyError(f"cannot read {path}: {error}") from error
    missing = sorted({*PER_TICK, *PER_CHUNK} - set(arrays))
    if missing:
        raise RobopolicyError(f"{path} lacks {', '.join(missing)}")
    ticks = len(arrays["time_ns"])
    for name in PER_TICK:
        expected = (ticks, action_dim) if name in ("references", "commands") else (ticks,)
        if arrays[name].shape != expected:
            raise RobopolicyError(f"{path}: {name} must be {expected}, got {arrays[name].shape}")
    return arrays

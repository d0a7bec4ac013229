"""The end of the trials: whose runs they were, as ``eval.json`` per policy and one report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from robopolicy.core.errors import ConfigError
from robopolicy.core.provenance import git_revision, package_versions, write_json
from robopolicy.evaluation.comparison import Report
from robopolicy.evaluation.eval_report import load_entries, short_labels, write_evaluation_report
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.sequential_run import compare_sequentially
from robopolicy.evaluation.stored import (
    FILE_NAME,
    EnvironmentRecord,
    Evaluation,
    StoppingRule,
    Timing,
    write_evaluation,
)
from robopolicy.evaluation.trials.log import BEST_SCORE, SUCCESS, Line, TrialLog
from robopolicy.evaluation.trials.plan import Trial
from robopolicy.evaluation.trials.protocol import Measured, Protocol
from robopolicy.evaluation.trials.starts import Start


def unblind(
    folder: Path,
    protocol: Protocol,
    log: TrialLog,
    *,
    stopping: StoppingRule,
    command: Sequence[str],
    alpha: float = 0.05,
    margin: float = 0.0,
) -> Path:
    """Write ``order.json``, a folder with ``eval.json`` for each policy that ran, and ``report.html``.

    Args:
        stopping: what was declared; "sequential" gives comparisons that stay valid although the outcomes
            decided when to stop.
        command: the command line, for the record.
    Returns:
        the page.
    Raises:
        ConfigError: nothing was judged, or a record does not open.
    """
    names = labels(protocol)
    judged = log.judged()
    if not judged:
        raise ConfigError(f"no trial in {folder} has been judged yet")
    measured = {number: protocol.measured(line) for number, line in judged.items()}
    write_json(folder / "order.json", [{**asdict(t), "label": names[t.policy]} for t in protocol.plan])
    files = []
    for policy in range(len(protocol.policies)):
        mine = [t for t in protocol.plan if t.policy == policy and t.number in judged]
        if not mine:
            continue
        home = folder / f"{policy + 1}_{re.sub(r'[^A-Za-z0-9.-]+', '_', names[policy])}"
        home.mkdir(exist_ok=True)
        evaluation = _evaluation(protocol, log, mine, judged, measured, stopping, command)
        write_evaluation(home / FILE_NAME, evaluation)
        files.append((names[policy], home / FILE_NAME))
    entries = load_entries([file for _, file in files], [name for name, _ in files])
    report = None
    if stopping.kind == "sequential" and len(entries) > 1:
        results = {entry.label: entry.episodes for entry in entries}
        report = _sequential(results, protocol, judged, alpha, margin)
    return write_evaluation_report(folder / "report.html", entries, comparison=report)


def labels(protocol: Protocol) -> list[str]:
    """What tells the policies apart; the same policy twice, to test the protocol itself, gets numbers."""
    paths = [policy.label for policy in protocol.policies]
    return short_labels(paths, [str(i + 1) for i in range(len(paths))])


def _evaluation(
    protocol: Protocol,
    log: TrialLog,
    trials: Sequence[Trial],
    judged: Mapping[int, Line],
    measured: Mapping[int, Measured],
    stopping: StoppingRule,
    command: Sequence[str],
) -> Evaluation:
    runs = [measured[trial.number] for trial in trials]
    seconds, steps = sum(run.seconds for run in runs), sum(run.steps for run in runs)
    timing = Timing(
        wall_seconds=seconds,
        steps_per_s=steps / seconds if seconds else 0.0,
        inference_ms=tuple(value for run in runs for value in run.inference_ms),
    )
    times = sorted(line.time for line in log.lines)
    notes = {trial.seed: _note(judged[trial.number], measured[trial.number]) for trial in trials}
    episodes = tuple(
        _episode(t, protocol.starts[t.condition], judged[t.number], measured[t.number], log.runs(t.number))
        for t in trials
    )
    return Evaluation(
        environment=EnvironmentRecord(f"robot:{protocol.robot}", {"judged": "by a person, blind"}),
        policy=protocol.policies[trials[0].policy],
        noise_seed=protocol.seed,
        command=tuple(command),
        success_predicate=protocol.success_predicate,
        stopping=stopping,
        started=times[0],
        ended=times[-1],
        episodes=episodes,
        versions=package_versions(),
        git_revision=git_revision(),
        timing=timing,
        notes={str(seed): text for seed, text in notes.items() if text},
    )


def _note(line: Line, measured: Measured) -> str:
    fault = f"fault: {measured.reason}" if measured.fault else ""
    return "; ".join(text for text in (line.note, fault) if text)


def _episode(trial: Trial, start: Start, line: Line, measured: Measured, runs: int) -> EpisodeResult:
    """A trial as an episode. Reward is the person's score; what was varied is the start."""
    reward = line.score / BEST_SCORE
    places = {f"{thing}_{axis}": v for thing, at in start.positions.items() for axis, v in zip("xyz", at)}
    return EpisodeResult(
        seed=trial.seed,
        success=line.outcome == SUCCESS,
        total_reward=reward,
        max_reward=reward,
        steps=measured.steps,
        seconds=measured.seconds,
        start={thing: list(place) for thing, place in start.positions.items()},
        conditions={"start": start.name, **places},
        action_hash=measured.action_hash,
        restarts=runs - 1,
    )


def _sequential(
    results: Mapping[str, Sequence[EpisodeResult]],
    protocol: Protocol,
    judged: Mapping[int, Line],
    alpha: float,
    margin: float,
) -> Report | None:
    """The anytime-valid comparison over whole blocks in the order in which they ran."""
    whole = {
        block
        for block in {trial.block for trial in protocol.plan}
        if all(trial.number in judged for trial in protocol.plan if trial.block == block)
    }
    seeds = list(dict.fromkeys(trial.seed for trial in protocol.plan if trial.block in whole))
    if not seeds:
        return None
    by_seed = {name: {e.seed: e for e in episodes} for name, episodes in results.items()}
    return compare_sequentially(
        list(results),
        seeds,
        lambda name, part: [by_seed[name][seed] for seed in part],
        batch=1,
        alpha=alpha,
        margin=margin,
    ).report

"""``eval.json``: everything one evaluation leaves behind, written and read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robopolicy.core.errors import RobopolicyError
from robopolicy.core.provenance import write_json
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.profile import Profile
from robopolicy.evaluation.reranked import SelectionRecord
from robopolicy.evaluation.results import EpisodeResult, Summary, summarise
from robopolicy.evaluation.stored_check import EVAL_SCHEMA_VERSION, EvaluationFileError, check, plain

FILE_NAME = "eval.json"


@dataclass(frozen=True)
class EnvironmentRecord:
    """Where the episodes ran: a name that ``make_env`` knows, or "robot:NAME"; and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyRecord:
    """What was evaluated: a label for people (its path), the SHA-256 of its files, its specs."""

    label: str
    digest: str
    specs: PolicySpecs


@dataclass(frozen=True)
class StoppingRule:
    """How it was decided, before the first episode, when to stop.

    Args:
        kind: "fixed", "sequential", or "by hand" when somebody ended it early.
        episodes: the number asked for, or the largest possible one.
        text: the rule in words, for the top of the report.
    """

    kind: str
    episodes: int
    text: str

    @staticmethod
    def fixed(episodes: int) -> StoppingRule:
        """Exactly ``episodes``, decided beforehand."""
        return StoppingRule("fixed", episodes, f"exactly {episodes} episodes, decided beforehand")


@dataclass(frozen=True)
class Timing:
    """Where the time went.

    Args:
        wall_seconds: of the whole evaluation, by the clock.
        steps_per_s: policy steps of all environments per second by the clock.
        share_physics, share_render, share_environment, share_policy: of the time summed over processes, each
            in 0..1, None where nobody measured; ``environment`` is what an environment does besides physics
            and pictures.
        inference_ms: of every call of the policy, in order.
        inference_batch: rows of each such call, padding included.
    """

    wall_seconds: float
    steps_per_s: float
    share_physics: float | None = None
    share_render: float | None = None
    share_environment: float | None = None
    share_policy: float | None = None
    inference_ms: tuple[float, ...] = ()
    inference_batch: int = 1

    @staticmethod
    def of(profile: Profile, *, inference_batch: int) -> Timing:
        """What ``evaluate`` filled in."""
        return Timing(
            wall_seconds=profile.wall,
            steps_per_s=profile.steps_per_s,
            **{f"share_{name}": share for name, share in profile.shares().items()},
            inference_ms=tuple(round(seconds * 1e3, 3) for seconds in profile.inferences),
            inference_batch=inference_batch,
        )


@dataclass(frozen=True)
class Evaluation:
    """One policy in one environment; the schema is ``eval.schema.json``.

    Args:
        command: the exact command line, one word per item.
        success_predicate: what counts as success, declared before the first episode.
        started, ended: ISO 8601 with the offset from UTC.
        episodes: in the order of their seeds as asked for; no seed twice.
        timing: None where nobody measured.
        selection: how one of several candidates was chosen; None where the policy's first sample was taken.
        notes: remarks of the person who watched, by seed (as text).
    """

    environment: EnvironmentRecord
    policy: PolicyRecord
    noise_seed: int
    command: tuple[str, ...]
    success_predicate: str
    stopping: StoppingRule
    started: str
    ended: str
    episodes: tuple[EpisodeResult, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    git_revision: str = ""
    timing: Timing | None = None
    selection: SelectionRecord | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> Summary:
        """Of the episodes, computed anew."""
        return summarise(list(self.episodes))


def write_evaluation(path: Path, evaluation: Evaluation) -> Path:
    """Write ``eval.json``, whole or not at all; returns its path.

    Args:
        path: the file, or the folder to hold it.
    Raises:
        EvaluationFileError: it would not validate: NaN, infinity, a seed twice, ...; nothing is written.
    """
    file = path / FILE_NAME if path.is_dir() else path
    tree = plain(to_tree(evaluation), where=str(file))  # before the summary: its means would hide the field
    head: dict[str, Any] = {"schema_version": EVAL_SCHEMA_VERSION}
    if evaluation.episodes:
        head["summary"] = plain(to_tree(evaluation.summary), where=str(file), field="summary")
    tree = {**head, **tree}
    check(tree, where=str(file))
    write_json(file, tree)
    return file


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation as it was written; a folder stands for the ``eval.json`` in it.

    Raises:
        EvaluationFileError: absent, no JSON, another version, or a field that breaks the schema or
            contradicts the episodes; the message names file and field.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvaluationFileError(f"no {FILE_NAME} at {path}; 'robopolicy eval' writes one") from error
    except (OSError, ValueError) as error:
        raise EvaluationFileError(f"{file} cannot be read: {error}") from error
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != EVAL_SCHEMA_VERSION:
        raise EvaluationFileError(
            f"{file}: schema_version is {version!r}, this robopolicy reads {EVAL_SCHEMA_VERSION}; "
            "evaluate again"
        )
    check(plain(tree, where=str(file)), where=str(file))
    fields = {key: value for key, value in tree.items() if key not in ("schema_version", "summary")}
    try:
        return from_tree(Evaluation, fields, str(file))
    except RobopolicyError as error:  # a spec or horizon that contradicts itself does not name the file
        text = str(error).removeprefix(f"{file}.").removeprefix(f"{file}: ")
        raise EvaluationFileError(f"{file}: {text}") from error


def find_evaluations(folder: Path) -> list[Path]:
    """``eval.json`` in a folder, or in the folders right below it (one per policy), sorted by name.

    Raises:
        EvaluationFileError: there is none.
    """
    if folder.is_file():
        return [folder]
    own = folder / FILE_NAME
    found = [own] if own.is_file() else sorted(folder.glob(f"*/{FILE_NAME}"))
    if not found:
        raise EvaluationFileError(f"no {FILE_NAME} in {folder} or right below it")
    return found

"""What ``eval.json`` must hold: its schema, and what the schema cannot say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from robopolicy.core.errors import MissingDependencyError, RobopolicyError
from robopolicy.evaluation.statistics import wilson_interval

EVAL_SCHEMA_VERSION = 2


class EvaluationFileError(RobopolicyError):
    """An ``eval.json`` is missing, damaged, of another version or contradicts itself; names the field."""


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``eval.json``."""
    text = resources.files("robopolicy.evaluation").joinpath("eval.schema.json").read_text(encoding="utf-8")
    tree: dict[str, Any] = json.loads(text)
    return tree


def check(tree: dict[str, Any], *, where: str) -> None:
    """Raise EvaluationFileError with the first field that breaks the schema or contradicts the episodes."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError as error:
        raise MissingDependencyError("eval.json needs jsonschema: pip install 'robopolicy[eval]'") from error
    errors = sorted(Draft202012Validator(schema()).iter_errors(tree), key=lambda e: list(map(str, e.path)))
    if errors:
        field_name = errors[0].json_path.removeprefix("$").removeprefix(".") or "the file"
        raise EvaluationFileError(f"{where}: {field_name}: {errors[0].message[:300]}")
    _check_seeds(tree, where)
    _check_summary(tree, where)


def _check_seeds(tree: dict[str, Any], where: str) -> None:
    seeds = [episode["seed"] for episode in tree["episodes"]]
    seen: set[int] = set()
    for place, seed in enumerate(seeds):
        if seed in seen:
            raise EvaluationFileError(f"{where}: episodes[{place}].seed: {seed} is there twice")
        seen.add(seed)
    for seed_text in tree["notes"]:
        if int(seed_text) not in seen:
            raise EvaluationFileError(f"{where}: notes: there is no episode with seed {seed_text}")


def _check_summary(tree: dict[str, Any], where: str) -> None:
    """The figures that follow from the episodes without a bootstrap."""
    summary, episodes = tree["summary"], tree["episodes"]
    count, successes = len(episodes), sum(episode["success"] for episode in episodes)
    low, high = wilson_interval(successes, count)
    expected = {
        "n_episodes": count,
        "successes": successes,
        "success_rate": successes / count,
        "success_interval": [low, high],
        "mean_return": float(np.mean([episode["total_reward"] for episode in episodes])),
        "max_reward": float(np.mean([episode["max_reward"] for episode in episodes])),
        "unstable": sum(episode["unstable"] for episode in episodes),
        "restarts": sum(episode["restarts"] for episode in episodes),
    }
    for name, value in expected.items():
        if not np.allclose(summary[name], value, rtol=1e-6, atol=1e-9):
            raise EvaluationFileError(
                f"{where}: summary.{name}: it says {summary[name]}, the episodes give {value}"
            )


def plain(value: Any, *, where: str, field: str = "") -> Any:
    """Plain JSON types throughout; numpy's become Python's.

    Raises:
        EvaluationFileError: NaN, infinity or something that is no data; names its field.
    """
    if isinstance(value, Mapping):
        return {k: plain(v, where=where, field=f"{field}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, where=where, field=f"{field}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist(), where=where, field=field)
    if isinstance(value, float) and not math.isfinite(value):
        raise EvaluationFileError(f"{where}: {field}: {value} is not a finite number")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise EvaluationFileError(f"{where}: {field}: {type(value).__name__} cannot be stored")

"""eval.json: what is written validates and reads back; what was damaged or edited is refused by its field."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from synthetic import make_policy_specs

from robopolicy.evaluation.profile import Profile
from robopolicy.evaluation.reranked import SelectionRecord
from robopolicy.evaluation.results import EpisodeResult, Summary
from robopolicy.evaluation.stored import (
    EnvironmentRecord,
    Evaluation,
    PolicyRecord,
    StoppingRule,
    Timing,
    find_evaluations,
    read_evaluation,
    write_evaluation,
)
from robopolicy.evaluation.stored_check import EvaluationFileError, schema
from robopolicy.runtime.reranking.config import RerankConfig, ScoreConfig


def make_evaluation(**changes: Any) -> Evaluation:
    episodes = tuple(
        EpisodeResult(
            seed=100 + i,
            success=i % 3 > 0,
            total_reward=1.5 * i,
            max_reward=0.1 * i,
            steps=10 + i,
            seconds=1.0 + 0.1 * i,
            maxima={"height": 0.01 * i},
            start={"goal": [0.1, 0.2], "points": [[1.0, 2.0], [3.0, 4.0]]},
            conditions={"payload": 0.1 * i, "texture": "wood", "delay_ticks": 2},
            action_hash="ab" * 32,
            video=f"seed_{100 + i}.mp4" if i < 2 else "",
        )
        for i in range(7)
    )
    profile = Profile(steps=70, wall=7.0, physics=3.0, render=1.0, environment=1.0, policy=5.0)
    profile.inferences = [0.0123456, 0.02]
    base = Evaluation(
        environment=EnvironmentRecord("lift", {"robot": "ur5e", "latency": {"action": 0.02}}),
        policy=PolicyRecord("runs/a", "cd" * 32, make_policy_specs()),
        noise_seed=3,
        command=("robopolicy", "eval", "--policy", "runs/a"),
        success_predicate="the cube is up",
        stopping=StoppingRule.fixed(7),
        started="2025-01-02T03:04:05+00:00",
        ended="2025-01-02T03:05:05.5+01:00",
        episodes=episodes,
        versions={"python": "3.11"},
        timing=Timing.of(profile, inference_batch=16),
        selection=SelectionRecord(
            RerankConfig(
                8, (ScoreConfig("critic", 1.0, {"pessimism": "mean"}), ScoreConfig("smoothness", 0.5))
            ),
            critic="runs/value",
            critic_digest="ef" * 32,
            decisions=30,
            other_than_first=27,
            nan_rows=1,
        ),
        notes={"101": "slipped"},
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_evaluation(tmp_path_factory.mktemp("eval"), make_evaluation()).read_bytes()


def test_what_is_written_validates_and_reads_back(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    evaluation = make_evaluation()
    folder = tmp_path / "one"
    folder.mkdir()
    file = write_evaluation(folder, evaluation)
    assert file == folder / "eval.json"
    jsonschema.Draft202012Validator(schema()).validate(json.loads(file.read_text()))
    assert read_evaluation(folder) == read_evaluation(file) == evaluation
    assert find_evaluations(tmp_path) == find_evaluations(folder) == find_evaluations(file) == [file]


def test_timing_is_what_was_profiled() -> None:
    timing = make_evaluation().timing
    assert timing is not None
    assert (timing.steps_per_s, timing.share_physics, timing.share_policy) == (10.0, 0.3, 0.5)
    assert timing.inference_ms == (12.346, 20.0)


def test_the_schema_knows_every_field_and_no_other() -> None:
    """A field added to a dataclass alone would be refused by every reader."""
    properties = schema()["properties"]
    for cls, block in (
        (Evaluation, {k: v for k, v in properties.items() if k not in ("schema_version", "summary")}),
        (EpisodeResult, schema()["$defs"]["episode"]["properties"]),
        (Timing, properties["timing"]["properties"]),
        (StoppingRule, properties["stopping"]["properties"]),
        (PolicyRecord, properties["policy"]["properties"]),
        (EnvironmentRecord, properties["environment"]["properties"]),
        (SelectionRecord, properties["selection"]["properties"]),
        (Summary, properties["summary"]["properties"]),
    ):
        assert set(block) == {f.name for f in dataclasses.fields(cls)}, cls


def test_numpy_is_written_as_plain_numbers(tmp_path: Path) -> None:
    episodes = list(make_evaluation().episodes)
    episodes[0] = dataclasses.replace(
        episodes[0],
        conditions={"payload": np.float32(0.5), "many": np.int64(3)},
        start={"goal": np.array([1, 2])},
        success=np.bool_(True),
    )
    write_evaluation(tmp_path, make_evaluation(episodes=tuple(episodes)))
    found = read_evaluation(tmp_path).episodes[0]
    assert found.conditions == {"payload": 0.5, "many": 3}
    assert found.start == {"goal": [1, 2]} and found.success is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"total_reward": math.nan}, r"episodes\[2\].total_reward: nan is not a finite number"),
        (lambda e: {"maxima": {"height": math.inf}}, r"episodes\[2\].maxima.height: inf"),
        (lambda e: {"start": {"goal": [0.0, -math.inf]}}, r"episodes\[2\].start.goal\[1\]: -inf"),
        (lambda e: {"seed": 100}, r"episodes\[2\].seed: 100 is there twice"),
        (lambda e: {"steps": -1}, r"episodes\[2\].steps: -1 is less than the minimum"),
        (lambda e: {"conditions": {"x": [1]}}, r"episodes\[2\].conditions.x: \[1\] is not of type"),
        (lambda e: {"conditions": {"x": {1}}}, r"episodes\[2\].conditions.x: set cannot be stored"),
        (lambda e: {"action_hash": "xyz"}, r"episodes\[2\].action_hash: 'xyz' does not match"),
        (lambda e: {"video": "../../etc/passwd"}, r"episodes\[2\].video"),
    ],
)
def test_what_would_not_validate_is_not_written(
    tmp_path: Path, change: Callable[[EpisodeResult], dict[str, Any]], message: str
) -> None:
    episodes = list(make_evaluation().episodes)
    episodes[2] = dataclasses.replace(episodes[2], **change(episodes[2]))
    with pytest.raises(EvaluationFileError, match=message):
        write_evaluation(tmp_path, make_evaluation(episodes=tuple(episodes)))
    assert not list(tmp_path.iterdir())


def test_no_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationFileError, match="summary"):
        write_evaluation(tmp_path, make_evaluation(episodes=(), notes={}))


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(tree: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        at: Any = tree
        for part in parents:
            at = at[part]
        if value is KeyError:
            del at[last]
        else:
            at[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("episodes.3.success", "yes"), r"episodes\[3\].success: 'yes' is not of type 'boolean'"),
        (_set("episodes.3.success", True), r"summary.successes: it says 4, the episodes give 5"),
        (_set("summary.success_rate", 0.99), r"summary.success_rate: it says 0.99"),
        (_set("summary.success_interval", [0.4, 0.6]), r"summary.success_interval: it says \[0.4, 0.6\]"),
        (_set("summary.max_reward", 1.0), r"summary.max_reward: it says 1.0"),
        (_set("summary.restarts", 1), r"summary.restarts: it says 1, the episodes give 0"),
        (_set("noise_seed", KeyError), r"the file: 'noise_seed' is a required property"),
        (_set("mine", 1), r"the file: .*'mine' was unexpected"),
        (_set("environment.name", ""), r"environment.name: '' "),
        (_set("stopping.kind", "whenever"), r"stopping.kind: 'whenever' is not one of"),
        (_set("started", "yesterday"), r"started: 'yesterday' does not match"),
        (_set("timing.share_policy", 1.5), r"timing.share_policy: 1.5 is greater than the maximum"),
        (_set("timing.inference_ms.0", None), r"timing.inference_ms\[0\]: None is not of type"),
        (_set("notes.7", "who?"), r"notes: there is no episode with seed 7"),
        (_set("policy.specs.horizons.action", 99), r"eval.json: executed actions 1..99 reach past"),
        (_set("policy.specs.specs.policy_rate", "fast"), r"policy.specs.specs.policy_rate: expected float"),
        (_set("schema_version", 1), r"schema_version is 1, this robopolicy reads 2"),
    ],
)
def test_an_edited_file_is_refused_by_its_field(
    tmp_path: Path, written: bytes, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    file, tree = tmp_path / "eval.json", json.loads(written)
    edit(tree)
    file.write_text(json.dumps(tree))
    with pytest.raises(EvaluationFileError, match=message) as caught:
        read_evaluation(file)
    assert str(file) in str(caught.value)


def test_what_is_no_evaluation_is_refused(tmp_path: Path, written: bytes) -> None:
    with pytest.raises(EvaluationFileError, match=r"no eval.json"):
        read_evaluation(tmp_path)
    with pytest.raises(EvaluationFileError, match=r"no eval.json in"):
        find_evaluations(tmp_path)
    file = tmp_path / "eval.json"
    for damaged in (written[: len(written) // 2], b"", b"[]", b"null", b"\xff\xfe"):
        file.write_bytes(damaged)
        with pytest.raises(EvaluationFileError, match=r"eval\.json"):
            read_evaluation(file)
    file.write_bytes(written.replace(b'"total_reward": 1.5,', b'"total_reward": NaN,'))
    with pytest.raises(EvaluationFileError, match=r"episodes\[1\].total_reward: nan is not a finite number"):
        read_evaluation(file)

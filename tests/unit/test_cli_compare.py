"""``robopolicy compare``: runs policies on the same seeds, or reads results, and says what differs."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from walking import Still, Walk

from robopolicy.cli import compare as command
from robopolicy.cli.main import main
from robopolicy.core.errors import RobopolicyError
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.evaluation.stored import (
    EnvironmentRecord,
    Evaluation,
    PolicyRecord,
    StoppingRule,
    read_evaluation,
    write_evaluation,
)


class Outward(Still):
    """Walks straight out, so that it succeeds where ``Still`` seldom does."""

    def sample(self, observation, noise, context=None):
        place = observation["place"][:, None, -1:]
        return np.broadcast_to(3 * np.sign(place), noise.shape).astype(np.float32)


POLICIES = {"still": Still, "outward": Outward, "again": Still}


@pytest.fixture
def walk(monkeypatch):
    """ "walk" is an environment, and the policies are known by their names, while these tests run."""

    def load(path: Path, threads: int = 1):
        if path.name not in POLICIES:
            raise RobopolicyError(f"no policy at {path}")
        return POLICIES[path.name]()

    monkeypatch.setattr(EnvRecipe, "bind", lambda self, specs: Walk)
    monkeypatch.setattr(command, "load_any", load)


def ask(capsys, *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["compare", *(str(a) for a in arguments)])
    out, error = capsys.readouterr()
    assert "Traceback" not in out + error
    return status, re.sub(r"\s+", " ", out + error)


def refused(capsys, *arguments: object) -> str:
    status, text = ask(capsys, *arguments)
    assert status == 2
    return text


def compared(output: Path) -> dict:
    return json.loads((output / "compare.json").read_text())


RUN = ["--env", "walk", "--executor", "inline", "--no-report"]


def test_policies_run_on_the_same_seeds(capsys, tmp_path, walk):
    out = tmp_path / "out"
    status, text = ask(capsys, "still", "outward", "again", "--output", out, "--episodes", 20, *RUN)
    assert status == 0 and "exact McNemar" in text and "baseline" in text and "better" in text
    tree = compared(out)
    assert [p["name"] for p in tree["policies"]] == ["still", "outward", "again"]
    outward, again = tree["comparisons"]
    assert outward["p_adjusted"] < 0.01 and outward["difference_interval"][0] > 0
    assert (again["gains"], again["losses"], again["p_value"], again["odds_ratio"]) == (0, 0, 1.0, None)
    stored = [read_evaluation(Path(file)) for file in tree["results"].values()]
    assert [e.policy.label for e in stored] == ["still", "outward", "again"]
    assert len({tuple(e.seed for e in evaluation.episodes) for evaluation in stored}) == 1
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["0_still", "1_outward", "2_again"]


def test_the_folders_it_leaves_are_results_to_compare(capsys, tmp_path, walk):
    first, second = tmp_path / "first", tmp_path / "second"
    assert ask(capsys, "still", "outward", "--output", first, "--episodes", 12, *RUN)[0] == 0
    status, _ = ask(
        capsys, first / "0_still", first / "1_outward" / "eval.json", "--output", second, "--no-report"
    )
    assert status == 0
    ran, read = compared(first), compared(second)
    for tree in (ran, read):
        for row in [*tree["policies"], *tree["comparisons"]]:
            for key in ("name", "baseline", "other"):
                row.pop(key, None)
    assert read["policies"] == ran["policies"] and read["comparisons"] == ran["comparisons"]


def test_a_sequential_comparison_stops_early_and_says_by_which_rule(capsys, tmp_path, walk):
    out = tmp_path / "out"
    given = ["--output", out, "--episodes", 200, "--sequential", "--batch", 5, *RUN]
    status, text = ask(capsys, "still", "outward", *given)
    assert status == 0 and "after 5, p" in text and "anytime-valid" in text
    tree = compared(out)
    counts = {p["count"] for p in tree["policies"]}
    assert len(counts) == 1 and counts.pop() < 60
    assert tree["comparisons"][0]["decision"] == "better" and tree["comparisons"][0]["p_value"] <= 0.05
    for file in tree["results"].values():
        evaluation = read_evaluation(Path(file))
        assert evaluation.stopping.kind == "sequential" and evaluation.stopping.episodes == 200
        assert "batches of 5 up to 200" in evaluation.stopping.text


def test_an_interrupted_comparison_goes_on(capsys, tmp_path, walk, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    given = ["--episodes", 40, *RUN]
    assert ask(capsys, "still", "outward", "--output", whole, *given)[0] == 0
    step, left = Outward.sample, [2]  # a batch holds 16 episodes

    def interrupted(self, observation, noise, context=None):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return step(self, observation, noise, context)

    monkeypatch.setattr(Outward, "sample", interrupted)
    assert ask(capsys, "still", "outward", "--output", cut, *given)[0] == 130
    assert not (cut / "compare.json").exists()
    assert ask(capsys, "still", "outward", "--output", cut, "--resume", *given)[0] == 0
    assert compared(cut)["comparisons"] == compared(whole)["comparisons"]
    assert "nothing to resume" in refused(
        capsys, "still", "outward", "--output", tmp_path / "new", "--resume", *given
    )


def store(folder: Path, outcomes: list[int], **facts: object) -> Path:
    """An ``eval.json`` with these outcomes from seed 0 on."""
    episodes = tuple(EpisodeResult(i, bool(won), 1.0 * won, 1.0, 5, 0.5) for i, won in enumerate(outcomes))
    evaluation = Evaluation(
        environment=EnvironmentRecord("lift"),
        policy=PolicyRecord(str(folder), "", Still.policy_specs),
        noise_seed=0,
        command=("robopolicy", "eval"),
        success_predicate="it is up",
        stopping=StoppingRule.fixed(len(episodes)),
        started="2026-01-01T10:00:00+00:00",
        ended="2026-01-01T11:00:00+00:00",
        episodes=episodes,
    )
    folder.mkdir(parents=True)
    write_evaluation(folder, dataclasses.replace(evaluation, **facts))
    return folder


def test_stored_results_are_compared_without_simulating(capsys, tmp_path):
    a, b = store(tmp_path / "a[0]", [0] * 20), store(tmp_path / "b", [1] * 9 + [0] * 11)
    status, text = ask(capsys, a, b, "--output", tmp_path / "out", "--no-report")
    assert status == 0 and "a[0]" in text and "9/20" in text
    (found,) = compared(tmp_path / "out")["comparisons"]
    assert found["p_value"] == pytest.approx(2 / 2**9) and found["odds_ratio"] is None


def test_a_page_shows_it(capsys, tmp_path):
    pytest.importorskip("jinja2", reason="the page needs the extra viz")
    a, b = store(tmp_path / "a", [0] * 20), store(tmp_path / "b", [1] * 9 + [0] * 11)
    assert ask(capsys, a, b, "--output", tmp_path / "out")[0] == 0
    assert "exact McNemar" in (tmp_path / "out" / "report.html").read_text()


def test_real_results_of_other_starts_are_compared_unpaired(capsys, tmp_path):
    a, b = store(tmp_path / "a", [0] * 10), store(tmp_path / "b", [1] * 9 + [0] * 6)
    assert "only 'b' has [10, 11, 12, 13, 14]" in refused(capsys, a, b, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    status, text = ask(capsys, a, b, "--output", tmp_path / "out", "--unpaired", "--no-report")
    assert status == 0 and "Boschloo" in text
    assert compared(tmp_path / "out")["comparisons"][0]["gains"] is None


def test_what_makes_results_hard_to_compare_is_said(capsys, tmp_path):
    a = store(tmp_path / "a", [0, 1])
    other = store(tmp_path / "other", [0, 1], environment=EnvironmentRecord("push"))
    assert "different environments" in refused(capsys, a, other, "--output", tmp_path / "out")
    late = store(tmp_path / "late", [0, 1], environment=EnvironmentRecord("lift", {"latency": 0.1}))
    rule = StoppingRule("sequential", 9, "until told apart")
    peeked = store(tmp_path / "peeked", [0, 1], stopping=rule)
    _, text = ask(capsys, a, late, peeked, "--output", tmp_path / "out", "--no-report")
    assert "note: other options" in text and "latency" in text and "stopped by their outcomes" in text


def test_bad_arguments_are_refused_before_anything_is_written(capsys, tmp_path, walk):
    a, out = store(tmp_path / "a", [0, 1]), tmp_path / "out"
    assert "at least two policies" in refused(capsys, "still", "--output", out)
    assert "give only one kind" in refused(capsys, "still", a, "--output", out)
    assert "given twice" in refused(capsys, "still", "still", "--output", out)
    assert "--episodes must be >= 1" in refused(capsys, "still", "outward", "--episodes", 0, "--output", out)
    assert "--alpha must lie in" in refused(capsys, "still", "outward", "--alpha", 1, "--output", out)
    assert "only need reading" in refused(capsys, a, a / "eval.json", "--sequential", "--output", out)
    assert "--unpaired is for stored" in refused(capsys, "still", "outward", "--unpaired", "--output", out)
    assert "no policy at" in refused(capsys, "still", "nowhere", "--output", out)
    assert not out.exists()
    out.mkdir()
    (out / "precious").write_text("mine")
    assert "already holds results" in refused(capsys, "still", "outward", "--output", out, *RUN)

"""``robopolicy sweep`` and ``robopolicy doraemon``: what is varied, what is written, what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import special
from walking import SPECS, Still, Walk

from robopolicy.cli import doraemon as doraemon_command
from robopolicy.cli import sweep as sweep_command
from robopolicy.cli.main import main
from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.policy import keyed_rng
from robopolicy.core.specs import ActionPart, ActionSpec
from robopolicy.evaluation.compensation import DelayCompensated, shift
from robopolicy.evaluation.environments import EnvRecipe
from robopolicy.evaluation.stored import read_evaluation
from robopolicy.evaluation.sweep import sweep_delay, sweep_parameter


class Outward(Still):
    """Walks straight out; absolute actions, so that some can be skipped."""

    policy_specs = replace(
        Still.policy_specs,
        specs=replace(SPECS.specs, action=ActionSpec((ActionPart("joint_position", ("x", "y")),))),
    )

    def sample(self, observation, noise, context=None):
        place = observation["place"][:, None, -1:]
        return np.broadcast_to(3 * np.sign(place), noise.shape).astype(np.float32)


class Wind(Walk):
    """A walk against ``wind``: each step is shorter by it. Takes the options of a simulated task."""

    def __init__(self, randomisation=None, latency=None):
        super().__init__()
        self.randomisation, self.latency = randomisation or {}, latency or {}

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        wind = self.randomisation.get("wind", 0.0)
        if isinstance(wind, dict):
            beta = wind["beta"]
            share = special.betaincinv(beta["a"], beta["b"], keyed_rng(seed, 1).random())
            wind = beta["low"] + (beta["high"] - beta["low"]) * share
        self.wind = float(wind) + 6 * sum(self.latency.values())
        return observation, {**info, "conditions": {"wind": self.wind}}

    def step(self, action):
        slower = action * np.float32(max(1 - self.wind, 0))
        observation, reward, far, over, info = super().step(slower)
        return observation, reward, far, over or far, {**info, "is_success": bool(far)}


@pytest.fixture(autouse=True)
def wind(monkeypatch):
    """ "wind" is an environment and any path a policy while these tests run."""
    monkeypatch.setattr(EnvRecipe, "bind", lambda self, specs: partial(Wind, **self.options))
    for command in (sweep_command, doraemon_command):
        monkeypatch.setattr(command, "load_any", lambda path, threads=1: Outward())


def ask(capsys, *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    status = main([str(a) for a in arguments])
    out, error = capsys.readouterr()
    assert "Traceback" not in out + error
    return status, re.sub(r"\s+", " ", out + error)


def sweep(capsys, output: Path, *arguments: object) -> tuple[int, str]:
    run = ("--env", "wind", "--executor", "inline", "--episodes", 30)
    return ask(capsys, "sweep", "any", "--output", output, *run, *arguments)


def test_delays_are_swept_in_one_command(capsys, tmp_path):
    out = tmp_path / "out"
    status, text = sweep(capsys, out, "--delay", 0, 0.05, 0.15)
    assert status == 0 and "150 ms" in text and "exact McNemar" in text
    tree = json.loads((out / "sweep.json").read_text())
    assert tree["parameter"] == "delay of observation [ms]" and not tree["compensated"]
    assert [p["value"] for p in tree["points"]] == [0.0, 0.05, 0.15]
    rates = [p["rate"] for p in tree["points"]]
    assert rates[0] >= rates[1] > rates[2]
    for point in tree["points"]:
        assert point["interval"][0] < point["rate"] < point["interval"][1] or point["rate"] in (0, 1)
        found = read_evaluation(out / point["results"] / "eval.json")
        assert [e.seed for e in found.episodes] == list(range(1_000_000, 1_000_030))
        assert found.environment.options["latency"] == {"observation": point["value"]}
    first, last = tree["comparisons"]
    assert (first["baseline"], last["other"]) == ("0 ms", "150 ms") and last["difference"] < 0
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "provenance.json").is_file()


def test_a_randomisation_parameter_is_swept_beside_what_else_is_drawn(capsys, tmp_path):
    out = tmp_path / "out"
    base = ("--option", "randomisation={other: 1.0, wind: 0.9}")
    assert sweep(capsys, out, "--vary", "wind=0.0,0.3,0.9", *base)[0] == 0
    tree = json.loads((out / "sweep.json").read_text())
    assert tree["parameter"] == "wind" and [p["value"] for p in tree["points"]] == [0.0, 0.3, 0.9]
    options = read_evaluation(out / "0.3" / "eval.json").environment.options
    assert options["randomisation"] == {"other": 1.0, "wind": 0.3}
    assert tree["points"][0]["rate"] > tree["points"][2]["rate"]


def test_an_interrupted_sweep_goes_on(capsys, tmp_path):
    out = tmp_path / "out"
    sweep(capsys, out, "--delay", 0, 0.1)
    whole = json.loads((out / "sweep.json").read_text())
    (out / "sweep.json").unlink()
    journal = out / "100_ms" / "episodes.jsonl"
    journal.write_text("\n".join(journal.read_text().splitlines()[:11]) + "\n")
    assert sweep(capsys, out, "--delay", 0, 0.1, "--resume")[0] == 0
    assert json.loads((out / "sweep.json").read_text()) == whole
    assert "already holds results" in sweep(capsys, out, "--delay", 0, 0.1)[1]


def test_presets_stay_beneath_what_is_swept():
    found = sweep_parameter("wind=1,2", {"randomisation": "heavy", "robot": "fr3"}).settings[0].options
    assert found == {"randomisation": {"preset": "heavy", "wind": 1}, "robot": "fr3"}
    found = sweep_delay([0.0, 0.1], "actuation", {"latency": {"observation": 0.02}}).settings[1].options
    assert found == {"latency": {"observation": 0.02, "actuation": 0.1}}
    assert sweep_parameter("texture:table=checker, noise", {}).settings[1].value == "noise"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --delay or --vary"),
        (("--delay", 0, 0.1, "--vary", "wind=1,2"), "either --delay or --vary"),
        (("--delay", 0), "at least two"),
        (("--delay", 0.1, 0.1), "at least two"),
        (("--delay", 0, -0.1), ">= 0 s"),
        (("--delay", 0, 0.1, "--delay-of", "thought"), "known: actuation, inference, observation"),
        (("--vary", "wind"), "NAME=VALUE"),
        (("--vary", "wind=[1,2"), "NAME=VALUE"),
        (("--vary", "wind=1,2", "--compensate"), "--compensate goes with --delay"),
        (("--vary", "wind=1,2", "--option", "randomisation=3"), "mapping or a preset"),
        (("--delay", 0, 0.1, "--episodes", 0), "--episodes"),
        (("--delay", 0, 0.1, "--resume"), "nothing to resume"),
        (("--delay", 0, 0.9, "--compensate"), "to spare"),
    ],
)
def test_what_makes_no_sweep_is_refused_before_anything_is_written(capsys, tmp_path, arguments, message):
    status, text = sweep(capsys, tmp_path / "out", *arguments)
    assert status == 2 and message in text
    assert not (tmp_path / "out").exists()


def test_a_compensated_policy_skips_what_is_past():
    chunks = np.arange(8, dtype=np.float32).reshape(1, 1, 8, 1) * np.ones((1, 1, 1, 2), np.float32)
    np.testing.assert_allclose(shift(chunks, 2.0)[0, 0, :, 0], [2, 3, 4, 5, 6, 7, 7, 7])
    np.testing.assert_allclose(shift(chunks, 0.5)[0, 0, :, 1], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7])
    np.testing.assert_array_equal(shift(chunks, 0.0), chunks)
    made = DelayCompensated(Outward(), 0.15)
    assert made.policy_specs == Outward.policy_specs and made.digest == ""
    known = Outward()
    known.digest = "0" * 64
    digests = {DelayCompensated(known, delay).digest for delay in (0.0, 0.1)} | {known.digest}
    assert len(digests) == 3 and all(len(digest) == 64 for digest in digests)
    with pytest.raises(ConfigError, match="joint_delta"):
        DelayCompensated(Still(), 0.1)
    with pytest.raises(ConfigError, match=r"have 0\.4 s to spare"):
        DelayCompensated(Outward(), 0.41)


def test_unknown_delays_are_listed():
    with pytest.raises(UnknownNameError, match="known: actuation, inference, observation"):
        sweep_delay([0, 1], "thinking", {})


# DORAEMON.


def doraemon(capsys, output: Path, *arguments: object) -> tuple[int, str]:
    run = ("--env", "wind", "--executor", "inline", "--episodes", 60)
    return ask(capsys, "doraemon", "any", "--output", output, *run, *arguments)


def test_ranges_widen_and_everything_is_logged(capsys, tmp_path):
    out = tmp_path / "out"
    status, text = doraemon(capsys, out, "--vary", "wind=0:0.1:1", "--iterations", 8, "--config.success", 0.4)
    assert status == 0 and "grown" in text
    lines = [json.loads(line) for line in (out / "doraemon.jsonl").read_text().splitlines()]
    tree = json.loads((out / "doraemon.json").read_text())
    assert tree["iterations"] == lines and len(lines) == 8
    assert lines[-1]["entropy"] > lines[0]["entropy"] + 0.3
    assert lines[-1]["high"]["wind"] > lines[0]["high"]["wind"]
    for line in lines:
        assert line["kl"] <= 0.1 + 1e-5 and line["episodes"] == 60
        assert 0 < line["ess"] <= 60 * (line["iteration"] + 1)
    assert tree["widest"]["successes"] >= 0.4 * 60
    assert (out / "doraemon.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vary", "wind=0:1"), "LOW:START:HIGH"),
        (("--vary", "wind=0:2:1"), "low <= start <= high"),
        (("--vary", "wind=0:0:1", "wind=0:0:2"), "given twice"),
        (("--vary", "wind=0:0:1", "--iterations", 0), "must be >= 1"),
        (("--vary", "wind=0:0:1", "--config.success", 2), "success"),
        (("--vary", "rain=0:0:1"), "do not say what ['rain']"),
    ],
)
def test_what_cannot_be_widened_is_refused(capsys, tmp_path, arguments, message):
    status, text = doraemon(capsys, tmp_path / "out", *arguments)
    assert status == 2 and message in text

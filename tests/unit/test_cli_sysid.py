"""``robopolicy sysid`` records, identifies, and refuses in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco", reason="the simulator is not installed")
pytest.importorskip("robopolicy_sim", reason="the simulator is not installed")
pytest.importorskip("plotly", reason="mujoco[sysid] is not installed")

from robopolicy.cli.main import main
from robopolicy.datasets.store import EpisodeStore
from robopolicy_sim.tasks.lift import LiftEnv


def ask(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output, standard error; line breaks of the terminal undone."""
    capsys.readouterr()
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, error = capsys.readouterr()
    return status, re.sub(r"\s+", " ", out), re.sub(r"\s+", " ", error)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sysid") / "excited.zarr"
    option = "--option=randomisation={delay_actuation: 0.02, 'kv:fr3_joint*': 3.0}"
    words = ["--excite", "lift", "--output", str(path), "--episodes", "3", "--seconds", "4", option]
    assert main(["sysid", *words]) == 0
    return path


def test_recording_is_at_control_rate(store):
    recorded = EpisodeStore.open(store)
    assert recorded.specs.policy_rate == 100.0 and len(recorded) == 3
    episode = recorded.read("000000")
    assert len(episode) == 400 and episode.metadata["excitation"] is True
    assert set(np.diff(episode.action.time_ns)) == {10_000_000}


def test_identification_leaves_what_environments_take(store, tmp_path, capsys):
    words = ["--parameters", "kv", "delay", "--seconds", "4", "--max-iterations", "4"]
    status, out, error = ask(capsys, "sysid", "--store", store, "--output", tmp_path / "run", *words)
    assert status == 0, error
    assert "open-loop error" in out and "delay" in out and "randomisation.yaml" in out
    tree = json.loads((tmp_path / "run" / "sysid.json").read_text())
    assert tree["after"]["tool_mm"] < 0.2 * tree["before"]["tool_mm"]
    conditions = yaml.safe_load((tmp_path / "run" / "randomisation.yaml").read_text())
    assert conditions["delay_actuation"] == pytest.approx(0.02, abs=2e-3)
    assert conditions["kv:fr3_joint1"] == pytest.approx(3.0, rel=0.05)
    assert conditions == tree["conditions"]
    _, info = LiftEnv(randomisation=str(tmp_path / "run" / "randomisation.yaml")).reset(seed=0)
    assert info["conditions"] == pytest.approx(conditions)
    assert (tmp_path / "run" / "held_out.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "run" / "config.json").read_text())["robot"] == "fr3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to identify from"),
        (["--store", "none.zarr"], "none.zarr"),
        (["--bag", "none"], "none"),
        (["--store", "STORE", "--robot", "r2d2"], "unknown simulated robot 'r2d2'"),
        (["--store", "STORE", "--robot", "ur5e"], "needs absolute joint_position of"),
        (["--store", "STORE", "--parameters", "stiffness"], "kp, kv, damping, armature, frictionloss, delay"),
        (["--store", "STORE", "--held-out", "1.5"], "held_out must be within 0..1, got 1.5"),
        (["--excite", "juggle"], "unknown environment 'juggle'"),
        (["--excite", "lift", "--episodes", "1"], "--episodes must be >= 2"),
        (["--excite", "lift", "--seconds", "1"], "at least 4 s, got 1"),
        (["--excite", "lift", "--store", "STORE"], "without --store"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(words, message, store, tmp_path, capsys):
    words = [str(store) if word == "STORE" else word for word in words]
    status, _, error = ask(capsys, "sysid", *words, "--output", tmp_path / "run")
    assert status == 2 and message in error, error
    assert not (tmp_path / "run").exists()

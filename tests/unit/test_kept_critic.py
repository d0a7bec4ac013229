"""Which critic of a training is the one that is used: that of the best measurement, not the last."""

from __future__ import annotations

import json

import pytest
import torch
from training_runs import lines, quiet, signal_at
from value_runs import assert_same_critic_run, make_value_store, quick_value

from robopolicy.models.saved import WEIGHTS
from robopolicy.steering._saved import load_critic
from robopolicy.training.checkpoint import newest_state
from robopolicy.training.config import HeldOutConfig
from robopolicy.training.failures import InterruptedTrainingError
from robopolicy.training.value import train as train_module
from robopolicy.training.value.judge import Findings, sampled
from robopolicy.training.value.train import resume_value

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
OFTEN = HeldOutConfig(0.25, every=3)


@pytest.fixture
def undrawn(monkeypatch):
    """Plots take longer than these trainings."""
    monkeypatch.setattr("robopolicy.training.value.report.draw_calibration", lambda *_: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_value_store(tmp_path_factory.mktemp("store") / "s.zarr", successes=4, failures=4)


def rank(monkeypatch, values):
    """Measurements come out like this, one after the other."""
    inner, left = Findings.scalars, iter(values)

    def scalars(self):
        told = inner(self)
        found = next(left, None)
        told.pop("mean_accuracy", None)
        return told if found is None else {**told, "mean_accuracy": found}

    monkeypatch.setattr(Findings, "scalars", scalars)


def weights(folder):
    return (folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ((0.5, 0.9, 0.7, 0.6), 6),
        ((0.8, 0.8, 0.8, 0.8), 3),
        ((0.5, 0.6, 0.7, 0.8), 12),
        ((0.7, float("nan")), 3),
    ],
)
def test_the_critic_that_ranks_best_is_the_one_that_is_used(store, tmp_path, monkeypatch, values, kept):
    rank(monkeypatch, values)
    run = tmp_path / "run"
    result = quick_value(store, run, held_out=OFTEN)
    assert result["best"]["step"] == result["value"]["step"] == kept
    assert json.loads((run / "value.json").read_text())["step"] == kept
    assert weights(run / "critic") == weights(run / "best")
    assert (run / "critic_last").is_dir() == (kept != 12)
    last = newest_state(run)[0]["ema"]["weights"]
    saved = load_critic(run / ("critic" if kept == 12 else "critic_last")).module.state_dict()
    assert all(torch.equal(last[f"critic.{name}"], value) for name, value in saved.items())


def test_what_is_said_is_said_of_the_kept_one(store, tmp_path, monkeypatch):
    rank(monkeypatch, (0.5, 0.9, 0.7, 0.6))
    result = quick_value(store, tmp_path / "run", held_out=OFTEN)
    measured = {line["step"]: line for line in lines(tmp_path / "run") if "ranking_accuracy" in line}
    assert list(measured) == [3, 6, 9, 12]
    for name in ("calibration_error", "spread"):
        assert result["value"][name] == pytest.approx(measured[6][name], rel=1e-6)
        assert measured[6][name] != measured[12][name]


def test_where_nothing_can_be_ranked_the_last_stays(store, tmp_path, monkeypatch):
    rank(monkeypatch, ())
    result = quick_value(store, tmp_path / "run", held_out=OFTEN)
    assert result["best"]["name"] == "held_out_loss" and (tmp_path / "run" / "best").is_dir()
    assert result["value"]["step"] == 12 and not (tmp_path / "run" / "critic_last").exists()


@pytest.mark.parametrize("broken", [4, 8])
def test_a_resumed_run_keeps_the_same_one(store, tmp_path, monkeypatch, broken):
    values = (0.5, 0.9, 0.7, 0.6)
    with monkeypatch.context() as patch:
        rank(patch, values)
        quick_value(store, tmp_path / "whole", held_out=OFTEN)
    with monkeypatch.context() as patch:
        rank(patch, values)
        signal_at(patch, broken)
        with pytest.raises(InterruptedTrainingError):
            quick_value(store, tmp_path / "broken", held_out=OFTEN)
    rank(monkeypatch, values[broken // 3 :])
    resume_value(tmp_path / "broken", console=quiet())
    assert_same_critic_run(tmp_path / "whole", tmp_path / "broken")
    assert (tmp_path / "broken" / "critic_last").is_dir()


def test_a_run_that_broke_off_while_it_was_kept_is_taken_up(store, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        rank(patch, (0.5, 0.9, 0.7, 0.6))
        patch.setattr(train_module, "conclude", fail)  # after the exchange, before the run is finished
        with pytest.raises(KeyboardInterrupt):
            quick_value(store, tmp_path / "run", held_out=OFTEN)
    resume_value(tmp_path / "run", console=quiet())
    rank(monkeypatch, (0.5, 0.9, 0.7, 0.6))
    quick_value(store, tmp_path / "whole", held_out=OFTEN)
    for folder in ("critic", "critic_last"):
        assert weights(tmp_path / "run" / folder) == weights(tmp_path / "whole" / folder)


def test_windows_are_sampled_with_their_neighbours():
    import numpy as np

    index = sampled(1000, 200, np.random.default_rng(0))
    assert len(set(index.tolist())) == 200 and (np.diff(index) > 0).all() and index.max() < 1000
    assert (np.diff(index) == 1).mean() > 0.9
    assert sampled(50, 4096, np.random.default_rng(0)).tolist() == list(range(50))

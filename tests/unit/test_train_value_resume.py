"""An interrupted and resumed training of a critic equals an uninterrupted one; what goes wrong is told."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
import types

import numpy as np
import pytest
import torch
from training_runs import TINY as POLICY
from training_runs import quick, quiet, said, signal_at
from value_runs import assert_same_critic_run, make_value_store, quick_value

from robopolicy.core.errors import ConfigError, RunExistsError
from robopolicy.models.critics import CriticConfig
from robopolicy.steering._saved import load_critic
from robopolicy.steering.objectives import cal_ql
from robopolicy.training.failures import BadLossError, InterruptedTrainingError, OutOfMemoryError
from robopolicy.training.train import resume
from robopolicy.training.value.train import resume_value
from robopolicy.training.value.update import ValueUpdate

pytestmark = pytest.mark.usefixtures("one_thread", "undrawn")
CASES = {
    "monte_carlo": {"objective": "monte_carlo"},
    "iql": {"objective": "iql", "at": 5},
    "cal_ql with a policy": {
        "objective": "cal_ql", "options": cal_ql.Config(policy=2), "policy": True, "policy_chunks": 2,
        "at": 12,
    },
    "two stores, words, parts": {
        "objective": "cal_ql", "stores": 2, "weights": (1.0, 2.0), "instruction": "words", "accumulate": 2,
    },
    "first action, bf16": {
        "objective": "iql", "precision": "bf16", "critic": CriticConfig(2, (16,), actions="first"), "at": 1,
    },
}  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch):
    """Plots take longer than these trainings."""
    monkeypatch.setattr("robopolicy.training.value.report.draw_calibration", lambda *_: None)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return [
        make_value_store(folder / "a.zarr"),
        make_value_store(folder / "b.zarr", successes=2, failures=2, first=9, instruction="do that"),
    ]


@pytest.fixture(scope="module")
def policy(stores, tmp_path_factory):
    run = tmp_path_factory.mktemp("policy") / "run"
    quick(stores[0], run, POLICY, steps=2, batch_size=8, threads=1)
    return run


@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_equals_uninterrupted(case, stores, policy, tmp_path, monkeypatch):
    options = dict(CASES[case])
    step = options.pop("at", 7)
    data = stores[: options.pop("stores", 1)]
    if options.get("policy"):  # a copy that is gone when the run goes on
        options["policy"] = shutil.copytree(policy, tmp_path / "copy")
    quick_value(data, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        signal_at(patch, step)
        message = rf"saved at step {step}; go on with: robopolicy train-value --resume"
        with pytest.raises(InterruptedTrainingError, match=message):
            quick_value(data, tmp_path / "broken", **options)
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    torch.manual_seed(99)  # what else goes on in the process does not matter
    console = quiet()
    resume_value(tmp_path / "broken", console=console)
    assert f"going on after step {step}" in said(console)
    assert "not bit for bit" not in said(console)
    assert_same_critic_run(tmp_path / "whole", tmp_path / "broken")


def test_a_run_is_not_begun_in_one_that_did_not_finish(stores, policy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError) as caught:
        signal_at(patch, 3, signal.SIGINT)
        quick_value(stores[0], tmp_path / "run")
    assert caught.value.signum == signal.SIGINT
    with pytest.raises(RunExistsError, match="go on with 'robopolicy train-value --resume"):
        quick_value(stores[0], tmp_path / "run")
    with pytest.raises(ConfigError, match="it trains a critic; robopolicy train-value --resume"):
        resume(tmp_path / "run")
    resume_value(tmp_path / "run", console=quiet())
    with pytest.raises(ConfigError, match="finished after 12 steps"):
        resume_value(tmp_path / "run")
    with pytest.raises(RunExistsError, match="choose another --output"):
        quick_value(stores[0], tmp_path / "run")
    with pytest.raises(ConfigError, match="it trains a policy; robopolicy train --resume"):
        resume_value(policy)
    with pytest.raises(ConfigError, match="nothing to resume"):
        resume_value(tmp_path / "absent")


def test_a_store_that_has_changed_is_refused(tmp_path, monkeypatch):
    make_value_store(tmp_path / "s.zarr")
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        signal_at(patch, 3)
        quick_value(make_value_store(tmp_path / "t.zarr"), tmp_path / "run")
    shutil.rmtree(tmp_path / "t.zarr")
    make_value_store(tmp_path / "t.zarr", first=50)
    with pytest.raises(ConfigError, match="is not what the run began with: digest differ"):
        resume_value(tmp_path / "run", console=quiet())


def test_a_labeller_that_has_changed_its_mind_is_refused(stores, tmp_path, monkeypatch):
    module = types.ModuleType("changing_labels")
    monkeypatch.setitem(sys.modules, "changing_labels", module)
    module.score = lambda episode, facts: -np.ones(len(episode))
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        signal_at(patch, 3)
        quick_value(stores[0], tmp_path / "run", reward="changing_labels:score")
    module.score = lambda episode, facts: -np.full(len(episode), 1.01)
    with pytest.raises(ConfigError, match="reward 'changing_labels:score' or who judges success has changed"):
        resume_value(tmp_path / "run", console=quiet())
    module.score = lambda episode, facts: -np.ones(len(episode))
    resume_value(tmp_path / "run", console=quiet())


def spoil(monkeypatch, step, change):
    inner, done = ValueUpdate._loss, [0]

    def loss(self, batch, rows):
        done[0] += 1
        return change(inner(self, batch, rows)) if done[0] == step else inner(self, batch, rows)

    monkeypatch.setattr(ValueUpdate, "_loss", loss)


def test_a_loss_that_is_no_number_names_its_batch_and_keeps_the_weights_before_it(
    stores, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        spoil(patch, 8, lambda loss: loss * float("nan"))
        with pytest.raises(BadLossError, match=r"loss is nan at step 8; lower the learning rate"):
            quick_value(stores[0], tmp_path / "run")
    told = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert told["step"] == 8 and len(told["windows"]) == 16
    assert all(str(stores[0].path) in text for text in told["episodes"])
    weights = load_critic(tmp_path / "run").module.state_dict()
    assert all(np.isfinite(value.numpy()).all() for value in weights.values())
    resume_value(tmp_path / "run", console=quiet())  # nothing is wrong this time: as if nothing had been
    quick_value(stores[0], tmp_path / "whole")
    assert_same_critic_run(tmp_path / "whole", tmp_path / "run")


def test_running_out_of_memory_says_what_to_lower(stores, tmp_path, monkeypatch):
    def fail(loss):
        raise MemoryError("no room")

    spoil(monkeypatch, 3, fail)
    with pytest.raises(
        OutOfMemoryError, match=r"step 3: not enough main memory.*--train.batch-size \(now 16"
    ):
        quick_value(stores[0], tmp_path / "run")


def test_several_processes_are_refused(stores, tmp_path, monkeypatch):
    from robopolicy.training.distributed import Processes

    two = dataclasses.replace(Processes(), count=2)
    monkeypatch.setattr("robopolicy.training.value.train.join", lambda device: two)
    with pytest.raises(ConfigError, match="trains in one process, and 2 were started"):
        quick_value(stores[0], tmp_path / "run")
    assert not (tmp_path / "run").exists()

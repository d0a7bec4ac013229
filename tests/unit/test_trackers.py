"""Metrics reach every tracker, and one that fails does not take the training along."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from training_runs import make_store, quick, quiet, said, signal_at

from robopolicy.core.errors import MissingDependencyError, UnknownNameError
from robopolicy.training.failures import InterruptedTrainingError
from robopolicy.training.metrics_log import MetricsLog
from robopolicy.training.trackers import Trackers, names, open_trackers
from robopolicy.training.trackers.mlflow import flat
from robopolicy.training.train import resume

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "s.zarr")


class Service:
    """Stands in for a tracking service's client; remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.info = types.SimpleNamespace(run_id="run-7")

    def __getattr__(self, name: str):
        def call(*args, **options):
            self.told.append((name, args, options))
            return self

        return call


def test_the_known_ones_are_files():
    assert names() == ["mlflow", "tensorboard", "wandb"]


def open_some(asked, run, step=0):
    return open_trackers(asked, run, config={"train": {"steps": 5}}, step=step, warn=lambda _: None)


def test_an_unknown_one_is_refused_before_the_training(tmp_path):
    with pytest.raises(UnknownNameError, match="known: auto, mlflow, tensorboard, wandb"):
        open_some(("nope",), tmp_path)


@pytest.mark.parametrize(
    ("name", "extra"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "train")]
)
def test_a_missing_package_is_named_with_its_extra(name, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name if name != "tensorboard" else "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=rf"robopolicy\[{extra}\]"):
        open_some((name,), tmp_path)


def test_automatic_means_tensorboard_where_it_is_installed(tmp_path, monkeypatch):
    open_some(("auto", "tensorboard"), tmp_path / "with").close()
    assert len(list((tmp_path / "with" / "tensorboard").iterdir())) == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    open_some(("auto",), tmp_path / "without").close()
    assert not (tmp_path / "without").exists()


def test_tensorboard_shows_a_resumed_run_as_one(store, tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with monkeypatch.context() as patch:
        signal_at(patch, 6)
        with pytest.raises(InterruptedTrainingError):
            quick(store, tmp_path / "run", trackers=("tensorboard",), log_every=2)
    resume(tmp_path / "run", console=quiet())
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 8, 10, 12]
    assert {"loss", "gradient_norm", "learning_rate", "samples_per_s"} <= set(events.Tags()["scalars"])


def test_weights_and_biases_gets_config_and_scalars_under_our_step(tmp_path, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    trackers = open_some(("wandb",), tmp_path)
    trackers.log(3, {"loss": 0.5})
    trackers.close()
    begin, log = service.told[0], service.told[-2]
    assert begin[0] == "init" and begin[2]["config"] == {"train": {"steps": 5}}
    assert begin[2]["resume"] == "allow" and len(begin[2]["id"]) == 16
    assert log[:2] == ("log", ({"loss": 0.5, "step": 3},)) and service.told[-1][0] == "finish"


def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "mlflow", service)
    for _ in range(2):
        trackers = open_some(("mlflow",), tmp_path)
        trackers.log(3, {"loss": 0.5})
        trackers.close()
    starts = [options for name, _, options in service.told if name == "start_run"]
    assert starts == [{"run_name": tmp_path.name}, {"run_id": "run-7"}]
    assert ("log_params", ({"train.steps": "5"},), {}) in service.told
    assert ("log_metrics", ({"loss": 0.5},), {"step": 3}) in service.told
    assert dict(flat({"a": {"b": 1}, "c": [2]})) == {"a.b": 1, "c": [2]}


def test_one_that_fails_is_left_out_and_told():
    class Broken:
        def log(self, step, values):
            raise ConnectionError("gone")

        def close(self):
            raise AssertionError("it was left out")

    kept, told = Service(), []
    trackers = Trackers({"broken": Broken(), "kept": kept}, told.append)
    trackers.log(1, {})
    trackers.log(2, {})
    trackers.close()
    assert told == ["broken failed and gets no more metrics: gone"]
    assert [name for name, _, _ in kept.told] == ["log", "log", "close"]


def test_a_training_survives_its_tracker(store, tmp_path, monkeypatch):
    monkeypatch.setattr("robopolicy.training.trackers.tensorboard.TensorBoard.log", lambda *_: 1 / 0)
    console = quiet()
    quick(store, tmp_path / "run", trackers=("tensorboard",), console=console)
    assert "tensorboard failed" in said(console) and (tmp_path / "run" / "train.json").is_file()


def test_lines_that_cannot_be_written_wait(tmp_path, monkeypatch):
    told: list[str] = []
    log = MetricsLog(tmp_path, step=0, warn=told.append)
    log.write(1, {"loss": 1.0})
    inner = Path.open

    def full(self, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    log.write(2, {"loss": 0.5})
    log.write(3, {"loss": 0.4})
    monkeypatch.setattr(Path, "open", inner)
    assert len(told) == 1 and "No space left" in told[0]
    log.write(4, {"loss": 0.3})
    steps = [line.split(",")[0] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {i}' for i in (1, 2, 3, 4)]

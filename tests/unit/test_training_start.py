"""What a training takes from the run it starts from, what of it stays in the new run, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from training_runs import SHORT, TINY, assert_same_run, make_store, quick, quiet, signal_at

from robopolicy.cli.main import main
from robopolicy.core.errors import ConfigError, RunExistsError
from robopolicy.core.horizons import Horizons
from robopolicy.datasets.goals import GoalConfig
from robopolicy.datasets.store import EpisodeStore
from robopolicy.policies import sdp
from robopolicy.policies._saved import load_policy
from robopolicy.training import building
from robopolicy.training import train as module
from robopolicy.training.config import RolloutConfig
from robopolicy.training.extend import ExtendConfig
from robopolicy.training.failures import InterruptedTrainingError
from robopolicy.training.finetune import FinetuneConfig
from robopolicy.training.train import resume

pytestmark = pytest.mark.usefixtures("one_thread")
OWN: dict[str, Any] = {
    "keys": ("joints", "goal.goal"),
    "goal": GoalConfig("future"),
    "instruction": "words",
    "horizons": Horizons(1, 8, 2),
}
SPARSE = sdp.Config(dim=16, layers=1, heads=2, expert_hidden=16, schedule=TINY.schedule)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[EpisodeStore]:
    folder = tmp_path_factory.mktemp("stores")
    return [
        make_store(folder / "a.zarr", instruction="push the block"),
        make_store(folder / "b.zarr", instruction="open the drawer"),
    ]


@pytest.fixture(scope="module")
def runs(stores, tmp_path_factory) -> dict[str, Path]:
    """Policies with observations, goals, text and horizons that are not the defaults."""
    folder = tmp_path_factory.mktemp("runs")
    quick(stores[0], folder / "unet", steps=2, **OWN)
    quick(stores[0], folder / "sdp", SPARSE, family="sdp", steps=2, **OWN)
    return {name: folder / name for name in ("unet", "sdp")}


def command(capsys, *words: object) -> tuple[int, str]:
    small = ("--train.steps", 2, "--train.batch-size", 16, "--train.threads", 1, "--train.device", "cpu")
    status = main(["train", *map(str, (*words, *small)), "--train.trackers"])
    told = capsys.readouterr()
    return status, re.sub(r"\s+", " ", told.out + told.err)


def test_a_run_is_fine_tuned_with_its_own_observations_horizons_and_texts(runs, stores, tmp_path, capsys):
    words = ("--store", stores[1].path, "--output", tmp_path / "r", "--train.finetune.run", runs["unet"])
    status, told = command(capsys, *words)
    assert status == 0 and "new: none" in told, told
    was, now = (load_policy(run).policy_specs for run in (runs["unet"], tmp_path / "r"))
    assert now == was
    assert json.loads((tmp_path / "r" / "config.json").read_text())["train"]["goal"] == {"sampling": "future"}
    other = ("--train.horizons.action", 4, "--train.finetune.parameters", "head")
    status, told = command(capsys, *words[:2], "--output", tmp_path / "s", *words[4:], *other)
    assert status == 0 and load_policy(tmp_path / "s").policy_specs.horizons == Horizons(1, 8, 4), told


def test_another_text_encoder_is_not_taken_for_the_same(runs, stores, tmp_path, monkeypatch):
    real = building.read_source
    monkeypatch.setattr(
        building, "read_source", lambda run: dataclasses.replace(real(run), encoder_digest="old")
    )
    with pytest.raises(ConfigError, match=r"'words' has digest .* the policy was trained with old"):
        quick(stores[1], tmp_path / "r", finetune=FinetuneConfig(str(runs["unet"])), **OWN)


def test_a_task_is_added_with_the_policys_own_options_and_others_are_refused(runs, stores, tmp_path, capsys):
    words = ("--extend", runs["sdp"], "--task", stores[1].path, "--output", tmp_path / "r")
    for extra in (
        ("--train.horizons.prediction", 8),
        ("--train.keys", "joints"),
        ("--train.goal.sampling", "future"),
        ("--train.extend.experts", 7),
    ):
        status, told = command(capsys, *words, *extra)
        assert status == 2 and f"leave out {extra[0]}" in told, told
    assert not (tmp_path / "r").exists()
    (tmp_path / "ways.yaml").write_text("open the drawer: [pull the drawer open]\n")
    status, told = command(capsys, *words, "--experts", 1, "--train.phrasings", tmp_path / "ways.yaml")
    assert status == 0, told
    assert load_policy(tmp_path / "r").policy_specs == load_policy(runs["sdp"]).policy_specs
    assert json.loads((tmp_path / "r" / "config.json").read_text())["train"]["goal"] == {"sampling": "future"}
    for name, value in {"keys": ("joints",), "horizons": Horizons(1, 8, 4)}.items():
        with pytest.raises(ConfigError, match=f"{name} .* are not those of .*leave them out"):
            extend(runs["sdp"], stores[1], tmp_path / "s", **{name: value})


def extend(run: Path, store: EpisodeStore, output: Path, **changes: Any) -> None:
    given = {"horizons": Horizons(), **changes}
    quick(store, output, None, extend=ExtendConfig(str(run), 1), **given)


def fine_tune(run: Path, store: EpisodeStore, output: Path) -> None:
    config = FinetuneConfig(str(run), parameters="lora")
    quick(store, output, None, finetune=config, **OWN)


@pytest.mark.parametrize(("begin", "name"), [(fine_tune, "unet"), (extend, "sdp")])
def test_it_is_resumed_when_the_run_it_started_from_is_gone(begin, name, runs, stores, tmp_path, monkeypatch):
    source = tmp_path / "source"
    shutil.copytree(runs[name], source)
    begin(source, stores[1], tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        signal_at(patch, 7)
        begin(source, stores[1], tmp_path / "broken")
    shutil.rmtree(source)
    resume(tmp_path / "broken", console=quiet())
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_an_interrupted_training_in_the_way_says_how_it_goes_on_before_anything_is_read(
    stores, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        signal_at(patch, 2)
        quick(stores[0], tmp_path / "run")
    monkeypatch.setattr(module.data_module, "open_stores", None)
    with pytest.raises(RunExistsError, match=r"--resume .*run'"):
        quick(stores[0], tmp_path / "run")


def test_rollouts_leave_the_policy_of_the_newest_checkpoint_and_no_folder(stores, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", []

    def look(folder, config, **_):
        newest = [p.name for p in sorted((run / "checkpoints").glob("step_*"))]
        saved = (run / "policy" / "weights.safetensors").read_bytes() if newest else b""
        seen.append((folder, saved))
        assert (folder / "policy.json").is_file() and (folder / "weights.safetensors").read_bytes() != saved
        return {"rollout_success": 0.0}

    monkeypatch.setattr(module, "rollout", look)
    monkeypatch.setattr(module, "check_rollouts", lambda *_: None)
    quick(stores[0], run, steps=9, save_every=5, rollouts=RolloutConfig(env=("lift",), every=4))
    (_, none), (_, five), *_ = seen
    assert none == b"" and five
    assert not [path for path in run.iterdir() if path.name.startswith("rollout")]


def test_a_finished_training_has_no_failure_left(stores, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        signal_at(patch, 3)
        quick(stores[0], tmp_path / "run", steps=SHORT.steps)
    (tmp_path / "run" / "failure.json").write_text("{}")
    resume(tmp_path / "run", console=quiet())
    assert not (tmp_path / "run" / "failure.json").exists()

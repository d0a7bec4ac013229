"""An interrupted and resumed training equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import SCHEDULE, TINY, assert_same_run, make_store, quick, quiet, said, signal_at

from robopolicy.core.errors import ConfigError
from robopolicy.models.augmentation import AugmentationConfig
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.policies import diffusion_transformer
from robopolicy.policies._saved import load_policy
from robopolicy.training.checkpoint import TENSORS, CheckpointError, checkpoints
from robopolicy.training.config import HeldOutConfig, RolloutConfig
from robopolicy.training.failures import InterruptedTrainingError
from robopolicy.training.train import resume

pytestmark = pytest.mark.usefixtures("one_thread")
LOOK = ObservationConfig(
    vision_channels=(8,), keypoints=2, augmentation=AugmentationConfig(brightness=0.3, state_noise=0.1)
)
DROPOUT = diffusion_transformer.Config(dim=16, layers=1, heads=2, dropout=0.3, schedule=SCHEDULE)
CASES = {
    "plain": {},
    "first step": {"at": 1},
    "while saving is due": {"at": 5},
    "last step": {"at": 12},
    "accumulation": {"accumulate": 4},
    "bf16": {"precision": "bf16"},
    "mixture": {"stores": 2, "weights": (1.0, 3.0)},
    "augmentation": {"policy_config": dataclasses.replace(TINY, observation=LOOK), "keys": ("scene", "goal")},
    "dropout": {"family": "diffusion_transformer", "policy_config": DROPOUT},
    "held out": {"held_out": HeldOutConfig(fraction=0.25, every=4), "batch_size": 10, "at": 8},
    "words": {"instruction": "words", "keys": ("joints", "goal.goal")},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return [
        make_store(folder / "a.zarr"),
        make_store(folder / "b.zarr", episodes=2, first=7, instruction="do that"),
    ]


def test_every_case_differs_from_the_plain_one():
    assert len(CASES) == len({json.dumps(case, default=str) for case in CASES.values()})


@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed_equals_uninterrupted(case, stores, tmp_path, monkeypatch):
    options = {"policy_config": TINY, **CASES[case]}
    step = options.pop("at", 7)  # of 5 batches an epoch and checkpoints every 5
    data = stores[: options.pop("stores", 1)]
    data = data if len(data) > 1 else data[0]
    quick(data, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        signal_at(patch, step)
        with pytest.raises(InterruptedTrainingError, match=rf"saved at step {step}; go on with: .*--resume"):
            quick(data, tmp_path / "broken", **options)
    torch.manual_seed(99)  # what else goes on in the process does not matter
    console = quiet()
    resume(tmp_path / "broken", console=console)
    assert f"going on after step {step}" in said(console)
    assert "not bit for bit" not in said(console)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.fixture
def simulated(monkeypatch) -> list[Path]:
    """Rollouts that load the policy, as real ones do, and last no time; gives the list of what was loaded."""
    loaded: list[Path] = []

    def rollout(folder, config, *, device, on_episode):
        load_policy(folder, device)
        loaded.append(folder)
        if len(loaded) == 1:
            signal.raise_signal(signal.SIGTERM)
        on_episode(None)
        return {"rollout_success": len(loaded) / 10}

    monkeypatch.setattr("robopolicy.training.train.check_rollouts", lambda *a: None)
    monkeypatch.setattr("robopolicy.training.train.rollout", rollout)
    return loaded


def test_rollouts_change_nothing_of_the_training_not_even_when_they_are_interrupted(
    stores, tmp_path, simulated
):
    options = {"family": "diffusion_transformer", "policy_config": DROPOUT}
    quick(stores[0], tmp_path / "none", **options)
    often = RolloutConfig(env=("lift",), every=4)
    with pytest.raises(InterruptedTrainingError, match="saved at step 4"):
        quick(stores[0], tmp_path / "with", rollouts=often, **options)
    resume(tmp_path / "with", console=quiet())
    assert len(simulated) == 4  # at 4, given up; and at 4, 8, 12
    a, b = (load_file(tmp_path / run / "policy" / "weights.safetensors") for run in ("none", "with"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_interrupted_twice(stores, tmp_path, monkeypatch):
    quick(stores[0], tmp_path / "whole")
    for step in (3, 5):  # 5 more after the first 3
        with monkeypatch.context() as patch:
            signal_at(patch, step, signal.SIGINT)
            with pytest.raises(InterruptedTrainingError) as caught:
                resume(tmp_path / "run", console=quiet()) if step == 5 else quick(stores[0], tmp_path / "run")
            assert caught.value.signum == signal.SIGINT
    resume(tmp_path / "run", console=quiet())
    assert_same_run(tmp_path / "whole", tmp_path / "run")


KILLED = """
import os, signal, sys
import pytest
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from robopolicy.datasets.store import EpisodeStore
from training_runs import quick, signal_at
with pytest.MonkeyPatch.context() as patch:
    signal_at(patch, 9, after=lambda: os.kill(os.getpid(), signal.SIGKILL))
    quick(EpisodeStore.open({store!r}), Path({run!r}))
"""


def test_killed_without_notice_it_goes_on_from_the_last_checkpoint(stores, tmp_path):
    tests = str(Path(__file__).parents[1])
    code = KILLED.format(tests=tests, store=str(stores[0].path), run=str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step_000000005"]
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # cut off in the middle
    quick(stores[0], tmp_path / "whole")
    resume(tmp_path / "run", console=quiet())
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def interrupted(stores, run, monkeypatch, step=11, **changes):
    with monkeypatch.context() as patch:
        signal_at(patch, step)
        with pytest.raises(InterruptedTrainingError):
            quick(stores[0], run, **changes)


def test_without_any_checkpoint_it_begins_again(stores, tmp_path, monkeypatch):
    interrupted(stores, tmp_path / "run", monkeypatch)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    console = quiet()
    resume(tmp_path / "run", console=console)
    assert "has no checkpoint yet" in said(console)
    quick(stores[0], tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(stores, tmp_path, monkeypatch):
    interrupted(stores, tmp_path / "run", monkeypatch)
    _, last = checkpoints(tmp_path / "run")
    data = bytearray((last / TENSORS).read_bytes())
    data[-1] ^= 1
    (last / TENSORS).write_bytes(data)
    console = quiet()
    resume(tmp_path / "run", console=console)
    assert "is damaged: its digest" in said(console) and "after step 10" in said(console)
    quick(stores[0], tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_crash_while_a_checkpoint_is_replaced_loses_nothing(stores, tmp_path, monkeypatch):
    interrupted(stores, tmp_path / "run", monkeypatch)
    *_, last = checkpoints(tmp_path / "run")
    for path in checkpoints(tmp_path / "run"):  # between two renames
        path.rename(path.with_name(f"{path.name}.old")) if path == last else shutil.rmtree(path)
    console = quiet()
    resume(tmp_path / "run", console=console)
    assert "going on after step 11" in said(console)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.old"))
    quick(stores[0], tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_when_all_are_damaged_it_says_which(stores, tmp_path, monkeypatch):
    interrupted(stores, tmp_path / "run", monkeypatch)
    for path in checkpoints(tmp_path / "run"):
        (path / "checkpoint.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step_000000011 is damaged.*step_000000010 is damaged"):
        resume(tmp_path / "run", console=quiet())


def test_what_cannot_be_resumed_is_refused(stores, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="nothing to resume"):
        resume(tmp_path / "absent")
    quick(stores[0], tmp_path / "done", steps=2)
    with pytest.raises(ConfigError, match=r"finished after 2 steps; --train.finetune.run"):
        resume(tmp_path / "done")
    shutil.copytree(stores[0].path, tmp_path / "s.zarr")
    store = type(stores[0]).open(tmp_path / "s.zarr")
    interrupted([store], tmp_path / "run", monkeypatch)
    shutil.rmtree(tmp_path / "s.zarr")
    make_store(tmp_path / "s.zarr", first=20)
    with pytest.raises(ConfigError, match="is not what the run began with: digest differ"):
        resume(tmp_path / "run", console=quiet())


def test_other_versions_or_threads_are_told(stores, tmp_path, monkeypatch):
    interrupted(stores, tmp_path / "run", monkeypatch)
    for path in checkpoints(tmp_path / "run"):
        facts = json.loads((path / "checkpoint.json").read_text())
        facts["versions"]["torch"], facts["threads"] = "1.0", 7
        (path / "checkpoint.json").write_text(json.dumps(facts))
    console = quiet()
    resume(tmp_path / "run", console=console)
    assert "not bit for bit the same: torch was 1.0" in said(console) and "threads was 7, is 1" in said(
        console
    )

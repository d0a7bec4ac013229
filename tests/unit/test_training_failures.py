"""What goes wrong in a training ends it, or does not, with the last checkpoint in place and a reason."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from training_runs import TINY, assert_same_run, lines, make_store, quick, quiet, said

from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.policies._saved import load_policy
from robopolicy.training import checkpoint, failures, update
from robopolicy.training.checkpoint import CheckpointError, checkpoints, load_checkpoint
from robopolicy.training.config import HeldOutConfig, RolloutConfig
from robopolicy.training.failures import BadLossError, OutOfMemoryError, blame, stop_on_signals
from robopolicy.training.train import resume
from robopolicy.training.update import Update

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "s.zarr")


def spoil(monkeypatch, step, value):
    """The loss of update ``step`` is multiplied by a number that is none."""
    inner, done = Update._gradients, [0]

    def gradients(self, batch):
        done[0] += 1
        return inner(self, batch) * (value if done[0] == step else 1.0)

    monkeypatch.setattr(Update, "_gradients", gradients)


def test_a_loss_that_is_no_number_names_its_batch_and_keeps_the_weights_before_it(
    store, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        spoil(patch, 8, float("nan"))
        with pytest.raises(BadLossError, match=r"loss is nan at step 8; lower the learning rate") as caught:
            quick(store, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert told["step"] == 8 and told["problem"] == "loss is nan"
    assert len(told["windows"]) == 16 and all(str(store.path) in text for text in told["episodes"])
    assert "16 windows of episodes" in str(caught.value) and "step_000000007" in str(caught.value)
    load_policy(tmp_path / "run")
    resume(tmp_path / "run", console=quiet())  # nothing is wrong this time: as if nothing had been
    quick(store, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_gradients_that_are_no_numbers_are_noticed_before_they_reach_the_weights(
    store, tmp_path, monkeypatch
):
    inner = update.clip_gradients
    monkeypatch.setattr(update, "clip_gradients", lambda *a: inner(*a) * float("inf"))
    with pytest.raises(BadLossError, match="the gradient's norm is inf at step 1"):
        quick(store, tmp_path / "run")
    state, _ = load_checkpoint(checkpoints(tmp_path / "run")[-1])
    assert all(t.isfinite().all() for t in state["policy"].values())


def test_a_diverging_training_stops(store, tmp_path):
    with pytest.raises(NonFiniteValueError, match=r"(loss|norm) is (nan|inf) at step \d+"):
        quick(store, tmp_path / "run", learning_rate=1e30, warmup_steps=0, steps=30, save_every=1)
    load_policy(tmp_path / "run")


def test_on_a_gpu_a_bad_loss_is_found_later_and_still_named(store, tmp_path, monkeypatch):
    """There nobody looks at every step; the same is simulated here."""
    spoil(monkeypatch, 3, float("inf"))
    inner = Update.__init__

    def init(self, *args):
        inner(self, *args)
        self.prompt = False

    monkeypatch.setattr(Update, "__init__", init)
    with pytest.raises(BadLossError, match="loss is inf at step 3"):
        quick(store, tmp_path / "run", log_every=50)
    told = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert told["step"] == 3
    assert checkpoints(tmp_path / "run") == []  # nothing that came after it is saved


def test_the_blamed_windows_are_those_of_the_batch(store):
    from robopolicy.core.horizons import Horizons
    from robopolicy.datasets.mixture import Mixture
    from robopolicy.datasets.windows import Windows

    parts = [Windows(store, Horizons(2, 8, 4), ("joints",), [name]) for name in store.names[:2]]
    mixture = Mixture(parts, (1.0, 2.0))
    batches = [b for epoch in (0, 1) for b in mixture.epoch(16, seed=3, epoch=epoch)]
    for step, batch in enumerate(batches, start=1):
        blamed = blame(mixture, seed=3, batch_size=16, step=step)
        again = mixture.batch(torch.tensor(blamed["windows"]).numpy())
        assert (again.action == batch.action).all()
        wanted = {f"{store.path}: {store.names[int(w >= 20)]}" for w in blamed["windows"]}
        assert set(blamed["episodes"]) == wanted


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    ],
)
def test_running_out_of_memory_says_what_to_lower_and_can_be_resumed(store, tmp_path, monkeypatch, error):
    inner, done = Update._gradients, [0]

    def gradients(self, batch):
        done[0] += 1
        found = inner(self, batch)
        if done[0] == 7:  # after its random numbers were drawn, which must be drawn again
            raise error
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Update, "_gradients", gradients)
        message = r"step 7: not enough main memory: .*--train.accumulate \(now 1.*--train.batch-size \(now 16"
        with pytest.raises(OutOfMemoryError, match=message):
            quick(store, tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run")][-1] == "step_000000006"
    resume(tmp_path / "run", console=quiet())
    quick(store, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_other_errors_are_not_taken_for_it():
    assert not failures.is_out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_disk_that_is_full_for_a_while_costs_one_checkpoint(store, tmp_path, monkeypatch, error):
    save, calls = checkpoint.save_file, [0]

    def full(tensors, path):
        if path.name == checkpoint.TENSORS:
            calls[0] += 1
            if calls[0] == 2:
                path.write_bytes(b"the beginning of it")
                raise error
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    console = quiet()
    quick(store, tmp_path / "run", save_every=4, keep=5, console=console)
    assert [p.name[-2:] for p in checkpoints(tmp_path / "run")] == ["04", "12"]
    text = said(console)
    assert "step 8: cannot write" in text and "the last checkpoint is" in text
    assert "the training goes on" in text
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_disk_that_is_full_at_the_end_is_an_error_and_the_last_checkpoint_stays(
    store, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        save, calls = checkpoint.save_file, [0]

        def full(tensors, path):
            calls[0] += 1
            if calls[0] > 2:
                raise OSError(28, "No space left on device")
            save(tensors, path)

        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(CheckpointError, match=r"step_000000012: .*No space left"):
            quick(store, tmp_path / "run")
    assert [p.name[-2:] for p in checkpoints(tmp_path / "run")] == ["05", "10"]
    resume(tmp_path / "run", console=quiet())
    quick(store, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from robopolicy.datasets.store import EpisodeStore
from training_runs import quick, quiet, said, signal_at
console = quiet()
limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
import pytest
with pytest.MonkeyPatch.context() as patch:
    signal_at(patch, 7, after=lambda: limit(1 << 10))  # every file written from now on is too large
    try:
        quick(EpisodeStore.open({store!r}), Path({run!r}), console=console, trackers=("tensorboard",))
    finally:
        limit(resource.RLIM_INFINITY)
        print(said(console))
"""


def test_a_real_write_error_leaves_the_checkpoint_before_it(store, tmp_path):
    tests = str(Path(__file__).parents[1])
    code = LIMITED.format(tests=tests, store=str(store.path), run=str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250)
    assert done.returncode == 1 and "CheckpointError: cannot write" in done.stderr
    assert "step 10: cannot write" in done.stdout and "the training goes on" in done.stdout
    assert [path.name[-2:] for path in checkpoints(tmp_path / "run")] == ["05"]
    resume(tmp_path / "run", console=quiet())
    quick(store, tmp_path / "whole", trackers=("tensorboard",))
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("error", [RuntimeError("contact buffer overflow"), OSError(28, "No space left")])
def test_a_simulator_that_dies_costs_one_measurement_and_no_other(store, tmp_path, monkeypatch, error):
    def rollout(*args, **options):
        raise error

    monkeypatch.setattr("robopolicy.training.train.check_rollouts", lambda *a: None)
    monkeypatch.setattr("robopolicy.training.train.rollout", rollout)
    console = quiet()
    often, held_out = RolloutConfig(env=("lift",), every=6), HeldOutConfig(fraction=0.25, every=6)
    result = quick(store, tmp_path / "run", console=console, batch_size=8, rollouts=often, held_out=held_out)
    assert result["steps"] == 12
    assert f"step 6: rollout_success not measured: {type(error).__name__}: {error}" in said(console)
    assert [line["step"] for line in lines(tmp_path / "run") if "held_out_loss" in line] == [6, 12]


def test_signals_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in failures.SIGNALS]
    with stop_on_signals() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):  # the second one does not wait
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in failures.SIGNALS] == before


def test_fp16_on_a_cpu_is_refused_with_the_reason(store, tmp_path):
    with pytest.raises(ConfigError, match=r"'fp16' needs a GPU: .*'bf16'"):
        quick(store, tmp_path / "run", TINY, precision="fp16")
    assert not re.search("run", " ".join(p.name for p in tmp_path.iterdir()))

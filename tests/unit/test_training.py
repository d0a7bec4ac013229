"""A training learns, says what it did, repeats itself bit for bit, and refuses what cannot be trained."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from pathlib import Path

import pytest
from safetensors.torch import load_file
from training_runs import SHORT, TINY, lines, make_store, quick, quiet, said

from robopolicy.core.errors import (
    ConfigError,
    RunExistsError,
    SpecError,
    StoreError,
    UnknownNameError,
)
from robopolicy.core.horizons import Horizons
from robopolicy.core.serial import from_tree, to_tree
from robopolicy.datasets.editing import Relabel, relabel
from robopolicy.datasets.store import EpisodeStore
from robopolicy.models.augmentation import AugmentationConfig
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.policies._saved import load_policy
from robopolicy.training.config import HeldOutConfig, RolloutConfig, TrainConfig
from robopolicy.training.distributed import Processes
from robopolicy.training.loop import Position
from robopolicy.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = dataclasses.replace(SHORT, steps=350, warmup_steps=10, log_every=50, save_every=100)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> EpisodeStore:
    return make_store(tmp_path_factory.mktemp("store") / "s.zarr")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("run") / "run"
    return output, train(store.path, output, policy_config=TINY, config=LONG, console=quiet())


def test_the_loss_falls(trained):
    _, result = trained
    told = lines(trained[0])
    assert [line["step"] for line in told] == list(range(50, 351, 50))
    assert told[-1]["loss"] < 0.6 * told[0]["loss"]
    assert result["final_loss"] == pytest.approx((told[-1]["loss"] + told[-2]["loss"]) / 2)
    assert told[-1]["learning_rate"] == pytest.approx(0, abs=1e-12) and told[0]["gradient_norm"] > 0


def test_the_run_says_what_it_did(trained, store):
    run, result = trained
    config = json.loads((run / "config.json").read_text())
    assert config["family"] == "diffusion_unet" and config["stores"] == [str(store.path)]
    assert config["train"]["steps"] == 350 and config["policy"]["channels"] == [8, 16]
    facts = json.loads((run / "provenance.json").read_text())
    (use,) = facts["stores"]
    assert facts["seed"] == 0 and use["episodes"] == store.names and use["digest"] == store.digest
    assert json.loads((run / "train.json").read_text()) == result
    assert {p.name for p in run.iterdir()} == {
        "config.json", "provenance.json", "metrics.jsonl", "train.json", "policy", "checkpoints",
    }  # fmt: skip
    assert {p.name for p in (run / "policy").iterdir()} == {"policy.json", "weights.safetensors"}
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == ["step_000000300", "step_000000350"]


def test_every_state_and_no_image_is_used_unless_keys_say_otherwise(trained):
    assert list(load_policy(trained[0]).policy_specs.specs.observation) == ["joints", "goal", "points"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(store, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        quick(store, tmp_path / name, seed=seed)
    a, b, c = (load_file(tmp_path / n / "policy" / "weights.safetensors") for n in "abc")
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)


def test_images_and_chosen_episodes_are_trained_on(store, tmp_path):
    noise = AugmentationConfig(state_noise=0.1)
    look = ObservationConfig(vision_channels=(8,), keypoints=2, augmentation=noise)
    tiny = dataclasses.replace(TINY, observation=look)
    quick(store, tmp_path / "run", tiny, names=store.names[:2], keys=("scene", "goal"), steps=2)
    policy = load_policy(tmp_path / "run")
    assert list(policy.policy_specs.specs.observation) == ["scene", "goal"]
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert facts["stores"][0]["episodes"] == store.names[:2]


def test_padding_can_be_left_out_of_the_loss(store, tmp_path):
    result = quick(store, tmp_path / "run", dataclasses.replace(TINY, loss_on_padding=False))
    assert math.isfinite(result["final_loss"])


def test_an_existing_run_is_never_overwritten(trained, store):
    before = {p: p.read_bytes() for p in trained[0].rglob("*") if p.is_file()}
    with pytest.raises(RunExistsError, match="already holds results"):
        quick(store, trained[0])
    assert {p: p.read_bytes() for p in trained[0].rglob("*") if p.is_file()} == before


def test_bad_input_is_refused_before_a_run_is_made(store, tmp_path):
    output = tmp_path / "run"
    with pytest.raises(SpecError, match=r"\['nose'\]; there are \['goal', 'joints', 'points', 'scene'\]"):
        quick(store, output, keys=("nose",))
    with pytest.raises(ConfigError, match="80 windows are fewer than one batch of 81"):
        quick(store, output, batch_size=81)
    with pytest.raises(UnknownNameError, match=r"known: .*diffusion_unet"):
        quick(store, output, family="nope")
    with pytest.raises(StoreError, match="no store at"):
        train(tmp_path / "absent", output, config=SHORT, console=quiet())
    with pytest.raises(ConfigError, match="multiple of 2"):
        quick(store, output, horizons=Horizons(2, 7, 4))
    with pytest.raises(StoreError, match="no episode '9'"):
        quick(store, output, names=["9"])
    (tmp_path / "ways.yaml").write_text("lift it: [raise it]")
    with pytest.raises(ConfigError, match=r"no phrasings for \['do it'\]"):
        quick(store, output, instruction="words", phrasings=str(tmp_path / "ways.yaml"))
    assert not output.exists()


def test_batches_that_processes_cannot_share_in_parts_are_refused_before_a_run_is_made(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr("robopolicy.training.train.join", lambda device: Processes(0, 2, "cpu"))
    with pytest.raises(
        ConfigError, match=r"batch_size 12 .* 2 processes evenly in 4 parts: .* multiple of 8"
    ):
        quick(store, tmp_path / "run", batch_size=12, accumulate=4)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp8"}, "'fp8' is not one of"),
        ({"normaliser": "median"}, "'median' is not one of"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"save_every": 0}, "save_every"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_an_impossible_training_is_refused_by_field(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SHORT, **change)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (HeldOutConfig, {"fraction": 1.0}, "held_out.fraction"),
        (HeldOutConfig, {"every": 0}, "held_out.every"),
        (RolloutConfig, {"episodes": 0}, "rollouts.every and episodes"),
    ],
)
def test_an_impossible_part_is_refused_by_field(part, change, message):
    with pytest.raises(ConfigError, match=message):
        part(**change)


def test_a_config_survives_its_file():
    changed = dataclasses.replace(LONG, keys=("a",), held_out=HeldOutConfig(0.1), frozen=("encoder",))
    assert from_tree(TrainConfig, json.loads(json.dumps(to_tree(changed)))) == changed


def test_several_stores_make_one_policy_and_are_recorded(store, tmp_path):
    other = make_store(tmp_path / "other.zarr", episodes=2, first=9, instruction="something else")
    quick([store, other], tmp_path / "run", weights=(1.0, 1.0), instruction="words")
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert [use["store"] for use in facts["stores"]] == [str(store.path), str(other.path)]
    policy = load_policy(tmp_path / "run")
    assert policy.policy_specs.instruction_dim == policy.text_encoder.dim > 0
    with pytest.raises(ConfigError, match="2 stores need as many weights"):
        quick([store, other], tmp_path / "two", weights=(1.0,))


def test_held_out_episodes_are_whole_and_their_loss_decides_the_best(store, tmp_path):
    result = quick(store, tmp_path / "run", held_out=HeldOutConfig(fraction=0.5, every=3), batch_size=8)
    (use,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["stores"]
    assert len(use["held_out"]) == 2 and sorted([*use["held_out"], *use["episodes"]]) == store.names
    measured = {line["step"]: line["held_out_loss"] for line in lines(tmp_path / "run") if "loss" not in line}
    assert list(measured) == [3, 6, 9, 12]
    best = min(measured, key=measured.get)
    assert result["best"] == {"step": best, "name": "held_out_loss", "value": measured[best]}
    assert json.loads((tmp_path / "run" / "best" / "measured.json").read_text()) == result["best"]
    load_policy(tmp_path / "run" / "best")


def test_what_is_held_out_is_measured_at_the_end_at_the_latest(store, tmp_path):
    result = quick(store, tmp_path / "run", held_out=HeldOutConfig(fraction=0.25), batch_size=8)
    assert [line["step"] for line in lines(tmp_path / "run") if "held_out_loss" in line] == [12]
    assert result["best"]["step"] == 12
    quick(store, tmp_path / "time", held_out=HeldOutConfig(fraction=0.25), batch_size=8, seconds=1e-6)
    assert [line["step"] for line in lines(tmp_path / "time") if "held_out_loss" in line] == [1]


def test_measuring_changes_nothing_of_the_training(store, tmp_path):
    names = store.names
    often = HeldOutConfig(fraction=0.25, every=1)
    quick(store, tmp_path / "often", held_out=often, batch_size=8)
    quick(store, tmp_path / "never", held_out=dataclasses.replace(often, every=1000), batch_size=8)
    a, b = (load_file(tmp_path / run / "policy" / "weights.safetensors") for run in ("often", "never"))
    assert len(names) == 4 and all((a[name] == b[name]).all() for name in a)


def test_accumulated_parts_make_the_same_gradient_as_the_whole(store, tmp_path):
    """Without noise to tell them apart: behaviour cloning draws none."""
    from robopolicy.policies import behaviour_cloning

    config = behaviour_cloning.Config(loss_on_padding=False)  # nor do rows with more padding weigh less
    norms = []
    for parts in (1, 4):
        run = tmp_path / str(parts)
        quick(
            store, run, config, family="behaviour_cloning", steps=1, log_every=1, accumulate=parts,
        )  # fmt: skip
        norms.append(lines(run)[0])
    assert norms[0]["loss"] == pytest.approx(norms[1]["loss"], rel=1e-5)
    assert norms[0]["gradient_norm"] == pytest.approx(norms[1]["gradient_norm"], rel=1e-4)


def test_a_time_limit_ends_the_training_early_and_saves_it(store, tmp_path):
    result = quick(store, tmp_path / "run", steps=10_000, seconds=1e-6)
    assert result["steps"] == 1
    assert json.loads((tmp_path / "run" / "train.json").read_text())["steps"] == 1
    load_policy(tmp_path / "run")


def test_failed_episodes_are_left_out_and_told(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    relabel(store, store.names[:1], Relabel(success="no"))
    console = quiet()
    quick(EpisodeStore.open(store.path), tmp_path / "run", console=console)
    assert "1 failed episodes left out" in said(console)


def test_compiling_takes_the_networks_and_leaves_their_names(store, tmp_path, monkeypatch):
    """What the compiler makes of them takes minutes on a CPU; here it is only asked."""
    compiled = []
    monkeypatch.setattr("torch.nn.Module.compile", lambda self: compiled.append(type(self).__name__))
    quick(store, tmp_path / "run", steps=1, compile=True)
    assert {"ObservationEncoder", "TemporalUNet"} <= set(compiled)


def test_the_position_in_a_training_is_saved_whole():
    position = Position(3, 2, 1.5, deque([[0.5, 1.0]]), {"step": 2, "name": "held_out_loss", "value": 0.1})
    state = json.loads(json.dumps(position.state()))
    assert Position(**state).state() == position.state() == state

"""A training learns, says what it did, repeats itself bit for bit, and stops with a reason."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from synthetic import make_episode, make_specs

from robopolicy.core.errors import (
    ConfigError,
    NonFiniteValueError,
    RunExistsError,
    SpecError,
    StoreError,
    UnknownNameError,
)
from robopolicy.core.horizons import Horizons
from robopolicy.datasets.episode import Signal
from robopolicy.datasets.store import EpisodeStore
from robopolicy.policies._saved import load_policy
from robopolicy.policies.diffusion_unet import Config
from robopolicy.training.train import TrainConfig, learning_rate_factor, train

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Config(channels=(8, 16), step_embedding=8, training_steps=20, denoising_steps=4)
SHORT = TrainConfig(
    steps=350, batch_size=16, warmup_steps=10, learning_rate=3e-3, horizons=Horizons(2, 8, 4), threads=1,
    device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> EpisodeStore:
    """Actions that follow from what is seen: the goal, approached."""
    specs = make_specs(image=True)
    store = EpisodeStore.create(tmp_path_factory.mktemp("store") / "s.zarr", specs)
    for seed in range(4):
        episode = make_episode(specs, 20, seed)
        goal = episode.observation["goal"].value
        action = np.column_stack([goal, goal[:, 0] * goal[:, 1]]).astype(np.float32)
        store.append(dataclasses.replace(episode, action=Signal(action, episode.action.time_ns)))
    return store


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("run") / "run"
    return output, train(store.path, output, policy_config=TINY, config=SHORT)


def quick(store, output, policy_config=TINY, names=None, **changes):
    config = dataclasses.replace(SHORT, **{"steps": 6, **changes})
    return train(store.path, output, policy_config=policy_config, config=config, names=names)


def test_the_loss_falls(trained):
    _, result = trained
    lines = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50, 351, 50))
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert result["final_loss"] == pytest.approx((lines[-1]["loss"] + lines[-2]["loss"]) / 2)


def test_the_run_says_what_it_did(trained, store):
    run, result = trained
    config = json.loads((run / "config.json").read_text())
    assert config["family"] == "diffusion_unet" and config["store"] == str(store.path)
    assert config["train"]["steps"] == 350 and config["policy"]["channels"] == [8, 16]
    facts = json.loads((run / "provenance.json").read_text())
    assert facts["seed"] == 0 and facts["episodes"] == store.names
    assert json.loads((run / "train.json").read_text()) == result
    assert {p.name for p in run.iterdir()} == {
        "config.json", "provenance.json", "metrics.jsonl", "train.json", "policy",
    }  # fmt: skip
    assert {p.name for p in (run / "policy").iterdir()} == {"policy.json", "weights.safetensors"}


def test_every_state_and_no_image_is_used_unless_keys_say_otherwise(trained):
    assert list(load_policy(trained[0]).policy_specs.specs.observation) == ["joints", "goal", "points"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(store, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        quick(store, tmp_path / name, seed=seed)
    a, b, c = (load_file(tmp_path / n / "policy" / "weights.safetensors") for n in "abc")
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)


def test_images_and_chosen_episodes_are_trained_on(store, tmp_path):
    tiny = dataclasses.replace(TINY, vision_channels=(8,), keypoints=2, state_noise=0.1)
    quick(store, tmp_path / "run", tiny, store.names[:2], keys=("scene", "goal"), steps=2)
    policy = load_policy(tmp_path / "run")
    assert list(policy.policy_specs.specs.observation) == ["scene", "goal"]
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert facts["episodes"] == store.names[:2]


def test_padding_can_be_left_out_of_the_loss(store, tmp_path):
    result = quick(store, tmp_path / "run", dataclasses.replace(TINY, loss_on_padding=False))
    assert math.isfinite(result["final_loss"])


def test_an_existing_run_is_never_overwritten(trained, store):
    before = {p: p.read_bytes() for p in trained[0].rglob("*") if p.is_file()}
    with pytest.raises(RunExistsError, match="already holds results"):
        quick(store, trained[0])
    assert {p: p.read_bytes() for p in trained[0].rglob("*") if p.is_file()} == before


def test_a_loss_that_is_no_number_stops_at_its_step_and_keeps_the_last_save(store, tmp_path):
    with pytest.raises(NonFiniteValueError, match=r"loss is (nan|inf) at step \d+; lower the learning rate"):
        quick(store, tmp_path / "run", learning_rate=1e30, warmup_steps=0, steps=30, save_every=1)
    load_policy(tmp_path / "run")


def test_bad_input_is_refused_before_a_run_is_made(store, tmp_path):
    output = tmp_path / "run"
    with pytest.raises(SpecError, match=r"\['nose'\]; there are \['goal', 'joints', 'points', 'scene'\]"):
        quick(store, output, keys=("nose",))
    with pytest.raises(ConfigError, match="80 windows are fewer than one batch of 81"):
        quick(store, output, batch_size=81)
    with pytest.raises(UnknownNameError, match=r"known: .*diffusion_unet"):
        train(store.path, output, family="nope", config=SHORT)
    with pytest.raises(StoreError, match="no store at"):
        train(tmp_path / "absent", output, config=SHORT)
    with pytest.raises(ConfigError, match="multiple of 2"):
        quick(store, output, horizons=Horizons(2, 7, 4))
    with pytest.raises(StoreError, match="no episode '9'"):
        quick(store, output, names=["9"])
    assert not output.exists()


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


def test_the_learning_rate_warms_up_then_falls_to_zero():
    factors = [learning_rate_factor(step, SHORT) for step in range(SHORT.steps + 1)]
    peak = int(np.argmax(factors))
    assert SHORT.warmup_steps - 2 <= peak <= SHORT.warmup_steps
    assert all(a < b for a, b in pairwise(factors[: peak + 1]))
    assert all(a > b for a, b in pairwise(factors[peak:]))
    assert factors[-1] == pytest.approx(0, abs=1e-12)

"""A saved critic: the same values again, and nothing loaded that does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_windows

from robopolicy.core.errors import RobopolicyError
from robopolicy.core.policy import Context
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.critics import CriticConfig, EnsembleCritic
from robopolicy.runtime.language.words import WordVectors
from robopolicy.steering._saved import load_critic, save_critic

SPECS = make_policy_specs()
CONFIG = CriticConfig(members=2, hidden=(8, 8))
FACTS = {"objective": "cal_ql", "reward": "sparse", "gamma": 0.98}


def save(
    folder: Path, specs: PolicySpecs = SPECS, seed: int = 0, config: CriticConfig = CONFIG, **options
) -> EnsembleCritic:
    torch.manual_seed(seed)
    critic = EnsembleCritic(config, specs)
    critic.set_returns(mean=-30.0, deviation=9.0)
    if critic.relative is not None:
        torch.nn.init.uniform_(critic.relative.rate, 0.5, 1.5)
    content = {"config": config, "specs": specs, "normalisers": make_normalisers(specs), "facts": FACTS}
    save_critic(folder, **content, weights=critic.state_dict(), **options)
    return critic.eval()


def chunks_of(specs: PolicySpecs) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, *specs.chunk_shape)).astype(np.float32)


def test_what_was_saved_is_what_is_loaded(tmp_path):
    module = save(tmp_path / "run" / "critic")
    loaded = load_critic(tmp_path / "run", "cpu")  # of a run folder, or of the critic's own
    again = load_critic(tmp_path / "run" / "critic", "cpu")
    observation, chunks = make_windows(SPECS, 2), chunks_of(SPECS)
    values = loaded.values(observation, chunks)
    assert values.shape == (2, 3, 2) and abs(values.mean() + 30) < 9  # the range of returns came along
    np.testing.assert_array_equal(values, again.values(observation, chunks))
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(loaded.module.state_dict()[name], weight)
    assert loaded.facts == FACTS and loaded.critic_specs == SPECS
    assert loaded.critic_normalisers == make_normalisers(SPECS)
    assert loaded.digest == again.digest and len(loaded.digest) == 64


def test_a_critic_from_before_actions_were_relative_is_what_it_was(tmp_path):
    module = save(tmp_path, config=dataclasses.replace(CONFIG, relative=False))
    tree = json.loads((tmp_path / "critic.json").read_text())
    del tree["config"]["relative"]
    (tmp_path / "critic.json").write_text(json.dumps(tree))
    loaded = load_critic(tmp_path, "cpu").module
    assert loaded.relative is None
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())


def test_other_weights_have_another_digest(tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "b", seed=1)
    assert load_critic(tmp_path / "a").digest != load_critic(tmp_path / "b").digest


def test_a_critic_brings_its_text_encoder(tmp_path):
    words = WordVectors.built_in()
    specs = dataclasses.replace(SPECS, instruction_dim=words.dim)
    save(tmp_path, specs, text_encoder=words)
    critic = load_critic(tmp_path, "cpu")
    assert critic.text_encoder.digest == words.digest
    values = [
        critic.values(make_windows(specs, 2), chunks_of(specs), Context((text,))) for text in ("lift", "push")
    ]
    assert (values[0] != values[1]).any()
    vectors = tmp_path / "text_encoder" / "words.npz"
    vectors.write_bytes(vectors.read_bytes() + b" ")
    with pytest.raises(RobopolicyError, match=r"has digest .* the critic has learned from"):
        load_critic(tmp_path)


def test_no_critic_says_how_to_get_one(tmp_path):
    with pytest.raises(RobopolicyError, match="train one with 'robopolicy train-value'"):
        load_critic(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.pop("normalisers"),
        lambda tree: tree["config"].update(members=0),
        lambda tree: tree["config"].update(depth=3),
        lambda tree: tree["specs"]["specs"].update(policy_rate=-1.0),
        lambda tree: tree.update(facts=3),
    ],
)
def test_a_damaged_description_is_refused(tmp_path, change):
    save(tmp_path)
    tree = json.loads((tmp_path / "critic.json").read_text())
    change(tree)
    (tmp_path / "critic.json").write_text(json.dumps(tree))
    with pytest.raises(RobopolicyError, match=r"critic\.json is damaged"):
        load_critic(tmp_path)


def test_weights_must_fit_exactly(tmp_path):
    save(tmp_path)
    tree = json.loads((tmp_path / "critic.json").read_text())
    tree["config"]["members"] = 3
    (tmp_path / "critic.json").write_text(json.dumps(tree))
    with pytest.raises(RobopolicyError, match="does not fit its description"):
        load_critic(tmp_path)
    save(tmp_path)
    whole = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(whole[:-9])
    with pytest.raises(RobopolicyError, match="does not fit its description"):
        load_critic(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(RobopolicyError, match="does not fit its description"):
        load_critic(tmp_path)

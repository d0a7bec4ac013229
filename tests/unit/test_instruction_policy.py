"""A torch policy that follows instructions: what it is told, saved, read back and exported with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_windows
from test_export_bundle import TinyCritic
from test_language import make_sentence_encoder

from robopolicy.core.errors import RobopolicyError, SpecError
from robopolicy.core.policy import Context, draw_noise, keyed_rng
from robopolicy.export.bundle import export_bundle
from robopolicy.export.options import ExportOptions
from robopolicy.export.parity import TOLERANCE
from robopolicy.models.critic_module import TorchCritic
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.policy_module import TorchPolicy
from robopolicy.policies._saved import load_policy, save_policy
from robopolicy.policies.diffusion_unet import Config, build
from robopolicy.runtime import BundlePolicy, load_bundle
from robopolicy.runtime.language.choose import load_text_encoder
from robopolicy.runtime.language.words import WordVectors

pytestmark = pytest.mark.usefixtures("one_thread")
ENCODER = WordVectors.built_in()
TINY = Config(
    channels=(16, 32), step_embedding=8, schedule=ScheduleConfig(training_steps=20, denoising_steps=2)
)
LIFT, PUSH = Context(("lift the cube",)), Context(("push the block",))


def save_run(folder: Path, encoder=ENCODER, instruction_dim: int = ENCODER.dim) -> Path:
    torch.manual_seed(3)
    policy = build(TINY, dataclasses.replace(make_policy_specs(), instruction_dim=instruction_dim))
    save_policy(
        folder / "policy",
        family="diffusion_unet",
        config=TINY,
        specs=policy.policy_specs,
        normalisers=make_normalisers(policy.policy_specs),
        weights=policy.state_dict(),
        text_encoder=encoder,
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "told")


def call(policy, rows: int = 1):
    noise = np.stack([draw_noise(policy.policy_specs, 2, keyed_rng(i)) for i in range(rows)])
    return make_windows(policy.policy_specs, rows), noise


def test_the_instruction_decides_and_is_needed(run):
    policy = load_policy(run)
    observation, noise = call(policy)
    told = policy.sample(observation, noise, LIFT)
    np.testing.assert_array_equal(policy.sample(observation, noise, LIFT), told)
    assert np.abs(policy.sample(observation, noise, PUSH) - told).max() > 1e-3
    with pytest.raises(SpecError, match="--instruction TEXT"):
        policy.sample(observation, noise)
    assert (policy.features(observation, LIFT) != policy.features(observation, PUSH)).any()


def test_every_row_has_its_own_instruction(run):
    policy = load_policy(run)
    observation, noise = call(policy, 2)
    both = policy.sample(observation, noise, Context(("lift the cube", "push the block")))
    for row, context in enumerate((LIFT, PUSH)):
        part = {name: value[[row, row]] for name, value in observation.items()}
        alone = policy.sample(part, noise[[row, row]], context)[0]
        np.testing.assert_allclose(both[row], alone, atol=1e-5)


def test_a_policy_without_language_ignores_instructions(tmp_path):
    policy = load_policy(save_run(tmp_path, encoder=None, instruction_dim=0))
    observation, noise = call(policy)
    np.testing.assert_array_equal(policy.sample(observation, noise, LIFT), policy.sample(observation, noise))
    assert policy.text_encoder is None and not (tmp_path / "policy" / "text_encoder").exists()


def test_a_saved_policy_brings_its_encoder_and_takes_no_other(tmp_path):
    folder = save_run(tmp_path / "run")
    vectors = folder / "policy" / "text_encoder" / "words.npz"
    assert load_policy(folder).text_encoder.digest == ENCODER.digest
    written = vectors.stat().st_mtime_ns
    save_run(folder)  # the next checkpoint leaves the encoder alone
    assert vectors.stat().st_mtime_ns == written
    vectors.write_bytes(vectors.read_bytes() + b" ")
    with pytest.raises(RobopolicyError, match=r"has digest .* the policy has learned from"):
        load_policy(folder)
    vectors.unlink()
    with pytest.raises(RobopolicyError, match=r"'words' is not in .*text_encoder"):
        load_policy(folder)


def test_a_sentence_encoder_travels_along(tmp_path):
    folder = make_sentence_encoder(tmp_path / "mini")
    encoder = load_text_encoder(str(folder))
    policy = load_policy(save_run(tmp_path / "run", encoder, encoder.dim))
    for path in folder.iterdir():
        path.unlink()  # no longer needed
    observation, noise = call(policy)
    assert policy.text_encoder.name == "mini"
    assert (
        policy.sample(observation, noise, LIFT) != policy.sample(observation, noise, Context(("cube",)))
    ).any()
    kept = sorted(path.name for path in (tmp_path / "run" / "policy" / "text_encoder").iterdir())
    assert kept == ["model.onnx", "tokenizer.json"]


def test_sizes_that_differ_and_a_policy_without_an_encoder_are_told(tmp_path):
    module = build(TINY, dataclasses.replace(make_policy_specs(), instruction_dim=5))
    normalisers = make_normalisers(module.policy_specs)
    with pytest.raises(SpecError, match="of 5 numbers, text encoder 'words' gives 128"):
        TorchPolicy(module, normalisers, text_encoder=ENCODER)
    policy = TorchPolicy(module, normalisers)
    with pytest.raises(SpecError, match="without a text encoder"):
        policy.sample(*call(policy), LIFT)


class ToldCritic(TinyCritic):
    """Adds what the instruction says to the conditioning."""

    def encode(self, observation, generator=None):
        return super().encode(observation) + observation["instruction"][:, :4]


def test_the_bundle_heeds_instructions_as_the_policy_does(run, tmp_path):
    options = ExportOptions(form="step", candidates=(1, 3))
    parity = export_bundle(run, tmp_path / "bundle", options=options)
    assert parity.max_abs <= TOLERANCE
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.features == ("step", "instruction")
    assert (bundle.manifest.text_encoder, bundle.manifest.text_files) == ("words", ("text_words.npz",))
    exported, policy = BundlePolicy(bundle), load_policy(run)
    observation, noise = call(policy, 2)
    context = Context(("push the block", "lift the cube"))
    chunks = exported.sample(observation, noise, context)
    assert np.abs(chunks - policy.sample(observation, noise, context)).max() <= TOLERANCE
    assert np.abs(chunks - exported.sample(observation, noise, LIFT))[0].max() > 1e-3
    with pytest.raises(SpecError, match="--instruction TEXT"):
        exported.sample(observation, noise)


def test_a_critic_is_told_too(run):
    policy = load_policy(run)
    critic = TorchCritic(ToldCritic(policy.policy_specs), policy.normalisers, text_encoder=ENCODER)
    observation, noise = call(policy)
    chunks = policy.sample(observation, noise, LIFT)
    assert (critic.values(observation, chunks, LIFT) != critic.values(observation, chunks, PUSH)).any()
    with pytest.raises(SpecError, match="--instruction TEXT"):
        critic.values(observation, chunks)


@pytest.mark.slow
def test_an_exported_critic_is_told_too(run, tmp_path):
    policy = load_policy(run)
    critic = TorchCritic(ToldCritic(policy.policy_specs), policy.normalisers, text_encoder=ENCODER)
    options = ExportOptions(form="step", candidates=(1,))
    export_bundle(run, tmp_path / "bundle", options=options, critic=critic)  # compares the values
    exported = BundlePolicy(load_bundle(tmp_path / "bundle"))
    observation, noise = call(policy)
    chunks = exported.sample(observation, noise, LIFT)
    values = exported.values(observation, chunks, LIFT)
    expected = critic.values(observation, chunks, LIFT)
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert (values != exported.values(observation, chunks, PUSH)).any()


def test_a_critic_that_understands_other_words_is_refused(run, tmp_path):
    policy = load_policy(run)
    other = SimpleNamespace(name="words", dim=ENCODER.dim, digest="0" * 64)
    for encoder, told in ((None, "the critic's none"), (other, "the critic's 'words' .000000000000")):
        critic = TorchCritic(ToldCritic(policy.policy_specs), policy.normalisers, text_encoder=encoder)
        with pytest.raises(SpecError, match=told):
            export_bundle(run, tmp_path / "bundle", critic=critic)
    assert not (tmp_path / "bundle").exists()


def test_a_description_from_before_there_was_language_is_read(run, tmp_path):
    folder = save_run(tmp_path, encoder=None, instruction_dim=0) / "policy"
    tree = json.loads((folder / "policy.json").read_text())
    assert "text_encoder" not in tree
    del tree["specs"]["instruction_dim"]
    (folder / "policy.json").write_text(json.dumps(tree))
    assert load_policy(folder).policy_specs.instruction_dim == 0

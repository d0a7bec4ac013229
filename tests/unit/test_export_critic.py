"""A trained critic goes into the policy's bundle, if they fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_windows
from test_export_bundle import save_run

from robopolicy.core.errors import RobopolicyError, SpecError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import draw_noise, keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.export.bundle import export_bundle
from robopolicy.export.options import ExportOptions
from robopolicy.models.critics import CriticConfig, EnsembleCritic
from robopolicy.policies._saved import load_policy
from robopolicy.runtime import BundlePolicy, load_bundle
from robopolicy.steering._saved import load_critic, save_critic

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = CriticConfig(members=3, hidden=(16, 16))
SHORT = ExportOptions(form="step", candidates=(1, 3))


def save_tiny_critic(folder: Path, specs: PolicySpecs, normalisers: Normalisers) -> Path:
    torch.manual_seed(5)
    module = EnsembleCritic(TINY, specs)
    module.set_returns(mean=-20.0, deviation=6.0)
    save_critic(
        folder / "critic",
        config=TINY,
        specs=module.policy_specs,
        normalisers=normalisers,
        weights=module.state_dict(),
        facts={"objective": "iql", "gamma": 0.98},
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "policy")


@pytest.fixture(scope="module")
def critic_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It looks at one of the policy's observations, and saw a little less of the actions."""
    policy = load_policy(run, device="cpu")
    key = next(iter(policy.policy_specs.specs.observation))
    specs = dataclasses.replace(policy.policy_specs, specs=policy.policy_specs.specs.select((key,)))
    action = policy.normalisers.action
    own = Affine(action.offset, tuple(0.8 * scale for scale in action.scale))
    normalisers = Normalisers({key: policy.normalisers.observation[key]}, own)
    return save_tiny_critic(tmp_path_factory.mktemp("critics") / "value", specs, normalisers)


def test_a_bundle_with_a_critic_judges_as_the_critic_does(run: Path, critic_run: Path, tmp_path: Path):
    export_bundle(run, tmp_path / "bundle", critic=critic_run, options=SHORT)
    bundle = load_bundle(tmp_path / "bundle")
    exported, critic = BundlePolicy(bundle), load_critic(critic_run, device="cpu")
    assert exported.critic_specs == critic.critic_specs
    assert exported.critic_normalisers == critic.critic_normalisers
    specs = exported.policy_specs
    observation = make_windows(specs, 2)
    noise = np.stack([draw_noise(specs, 6, keyed_rng(i)) for i in range(2)])
    candidates = exported.sample(observation, noise)
    values = critic.values(observation, candidates)
    assert values.shape == (2, 6, 3) and values.std() > 1e-3
    np.testing.assert_allclose(exported.values(observation, candidates), values, atol=1e-3)
    facts = bundle.manifest.producer.details
    assert (facts["critic_gamma"], facts["critic_digest"]) == ("0.98", critic.digest)
    assert 0 <= bundle.manifest.measured["parity.critic"] <= 1e-4


def test_a_critic_of_other_actions_is_refused_before_anything_is_written(run: Path, tmp_path: Path):
    policy = load_policy(run, device="cpu")
    fitted = make_normalisers(policy.policy_specs)
    elsewhere = Affine(tuple(10 + o for o in fitted.action.offset), fitted.action.scale)
    far = dataclasses.replace(fitted, action=elsewhere)
    value = save_tiny_critic(tmp_path / "value", policy.policy_specs, far)
    with pytest.raises(SpecError, match=r"ranges over .* in the policy's, .* in the critic's"):
        export_bundle(run, tmp_path / "bundle", critic=value, options=SHORT)
    with pytest.raises(RobopolicyError, match="train-value"):
        export_bundle(run, tmp_path / "bundle", critic=run, options=SHORT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["value"]

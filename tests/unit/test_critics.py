"""Critics: members at once as one by one, the same from any split of the work, in torch and exported."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnxruntime
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_windows
from torch.nn import functional

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, SpecError
from robopolicy.core.language import INSTRUCTION
from robopolicy.core.policy import Context
from robopolicy.core.specs import PolicySpecs
from robopolicy.export.critic import export_critic
from robopolicy.models.critic_module import TorchCritic
from robopolicy.models.critics import CriticConfig, EnsembleCritic, StateValue
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.runtime.language.words import WordVectors

SPECS = make_policy_specs()
SMALL = CriticConfig(members=3, hidden=(24, 16))


def make_critic(config: CriticConfig = SMALL, specs: PolicySpecs = SPECS, seed: int = 0) -> EnsembleCritic:
    torch.manual_seed(seed)
    critic = EnsembleCritic(config, specs)
    for parameter in critic.heads.parameters():  # norms begin as the identity
        torch.nn.init.normal_(parameter, std=0.4)
    critic.set_returns(mean=-20.0, deviation=7.0)
    if critic.relative is not None:
        for buffer in critic.relative.buffers():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return critic.eval()


def adapter(critic: EnsembleCritic, **options) -> TorchCritic:
    return TorchCritic(critic, make_normalisers(critic.policy_specs), **options)


def call(specs: PolicySpecs = SPECS, batch: int = 2, n: int = 5) -> tuple[dict, np.ndarray]:
    chunks = np.random.default_rng(3).uniform(-1, 1, (batch, n, *specs.chunk_shape)).astype(np.float32)
    return make_windows(specs, batch), chunks


def slowly(critic: EnsembleCritic, observation: dict, chunk: torch.Tensor) -> torch.Tensor:
    """(rows, members) one member after the other, its first layer in one piece."""
    executed = critic.policy_specs.horizons.executed
    if critic.config.actions == "first":
        executed = slice(executed.start, executed.start + 1)
    scored = chunk[:, executed]
    if critic.relative is not None:
        scored = critic.relative.of_chunk(scored) + critic.relative.of_observation(observation)[:, None]
    inputs = torch.cat([critic.encoder(observation), scored.flatten(1)], dim=1)
    weight = torch.cat([critic.observe.weight, critic.act.weight], dim=1)
    width, found = critic.config.hidden[0], []
    for member in range(critic.members):
        rows = slice(member * width, (member + 1) * width)
        x = functional.linear(inputs, weight[rows], critic.observe.bias[rows])
        for layer, (w, b) in enumerate(zip(critic.heads.weights, critic.heads.biases)):
            if critic.config.layer_norm:
                scale, shift = (p[layer][member, 0] for p in (critic.heads.scales, critic.heads.shifts))
                x = functional.layer_norm(x, x.shape[-1:], scale, shift)
            x = functional.linear(x.relu(), w[member].T, b[member, 0])
        found.append(critic.offset + critic.scale * x[:, 0])
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("actions", ["chunk", "first"])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_members_at_once_are_members_one_by_one(actions, layer_norm):
    critic = make_critic(dataclasses.replace(SMALL, actions=actions, layer_norm=layer_norm))
    inputs = make_normalisers(SPECS).observations(SPECS.specs, make_windows(SPECS, 6))
    observation = {name: torch.from_numpy(value) for name, value in inputs.items()}
    chunk = torch.randn(6, *SPECS.chunk_shape)
    with torch.no_grad():
        values = critic.value(critic.encode(observation), chunk)
        assert values.shape == (6, 3) and values.std(dim=1).min() > 0.01
        torch.testing.assert_close(values, slowly(critic, observation, chunk), rtol=1e-4, atol=1e-4)
        many = critic.values(critic.encode(observation)[:2], chunk.unflatten(0, (2, 3)))
        rows = critic.encode(observation)[:2].repeat_interleave(3, dim=0)
        torch.testing.assert_close(many.flatten(0, 1), critic.value(rows, chunk), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("actions", "heeded"), [("chunk", range(1, 5)), ("first", range(1, 2))])
def test_only_the_actions_that_will_be_executed_count(actions, heeded):
    """Of a chunk of 8 with two observations and an action horizon of 4: steps 1 to 4."""
    critic = adapter(make_critic(dataclasses.replace(SMALL, actions=actions)))
    observation, chunks = call(n=1)
    base = critic.values(observation, chunks)
    for step in range(SPECS.horizons.prediction):
        changed = chunks.copy()
        changed[:, :, step] += 0.5
        assert (critic.values(observation, changed) != base).any() == (step in heeded)


def test_it_is_a_critic_in_physical_units():
    critic = adapter(make_critic(), facts={"gamma": 0.98})
    assert critic.facts == {"gamma": 0.98}
    assert critic.critic_specs == SPECS and critic.critic_normalisers == make_normalisers(SPECS)
    observation, chunks = call()
    values = critic.values({**observation, "unknown": np.zeros(3)}, chunks)
    assert values.shape == (2, 5, 3) and values.dtype == np.float32
    alone = critic.values({k: v[1:] for k, v in observation.items()}, chunks[1:, 2:3])
    np.testing.assert_allclose(alone[0, 0], values[1, 2], rtol=1e-4)


def test_a_policys_noise_and_prefix_are_none_of_its_business():
    specs = dataclasses.replace(SPECS, noise_shape=(8, 3), takes_prefix=True)
    assert make_critic(specs=specs).policy_specs == SPECS


def test_values_that_are_not_finite_come_out_as_they_are():
    critic = make_critic()
    observation, chunks = call()
    chunks[0, 1] = np.nan
    values = adapter(critic).values(observation, chunks)
    assert np.isnan(values[0, 1]).all() and np.isnan(values).sum() == 3
    critic.heads.biases[-1].data[1] = np.nan
    values = adapter(critic).values(*call())
    assert np.isnan(values[..., 1]).all() and np.isfinite(values[..., [0, 2]]).all()


def test_inputs_that_break_the_specs_are_refused():
    critic, (observation, chunks) = adapter(make_critic()), call()
    with pytest.raises(ShapeError, match=r"candidates must be \(batch, n, \(8, 3\)\), got \(2, 5, 7, 3\)"):
        critic.values(observation, chunks[:, :, 1:])
    with pytest.raises(SpecError, match=r"lacks \['points'\]"):
        critic.values({k: v for k, v in observation.items() if k != "points"}, chunks)
    with pytest.raises(ShapeError, match="observation 'joints'"):
        critic.values(observation, chunks[:1])
    bad = {**observation, "joints": np.full_like(observation["joints"], np.nan)}
    with pytest.raises(NonFiniteValueError, match="'joints'"):
        critic.values(bad, chunks)


def test_values_are_near_the_returns_before_any_training():
    torch.manual_seed(0)
    critic = EnsembleCritic(CriticConfig(), SPECS)
    critic.set_returns(mean=-20.0, deviation=7.0)
    values = adapter(critic.eval()).values(*call())
    assert abs(values.mean() + 20) < 7 and 0 < values.std() < 14
    state = StateValue(SMALL, SPECS)
    state.set_returns(mean=3.0, deviation=0.1)
    inputs = make_normalisers(SPECS).observations(SPECS.specs, make_windows(SPECS, 4))
    found = state({name: torch.from_numpy(value) for name, value in inputs.items()})
    assert found.shape == (4,) and (found - 3).abs().max() < 0.3


def test_goals_cameras_and_instructions_come_along():
    words = WordVectors.built_in()
    specs = dataclasses.replace(make_policy_specs(image=True), instruction_dim=words.dim)
    config = dataclasses.replace(SMALL, observation=ObservationConfig(vision_channels=(8,), keypoints=2))
    critic = adapter(make_critic(config, specs), text_encoder=words)
    observation, chunks = call(specs)
    lift, push = (
        critic.values(observation, chunks, Context((t,))) for t in ("lift the cube", "push the box")
    )
    assert (lift != push).any()
    with pytest.raises(SpecError, match="follows instructions"):
        critic.values(observation, chunks)
    inputs = make_normalisers(specs).observations(specs.specs, observation)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    tensors[INSTRUCTION] = torch.ones(2, words.dim)
    seen = [critic.module.encode(tensors, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert (seen[0] != seen[1]).any()  # images are augmented in training


def test_the_exported_graphs_are_the_same_function():
    critic = make_critic()
    graphs = {
        role: onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        for role, data in export_critic(critic).items()
    }
    observation, chunks = call(batch=3, n=4)
    normalisers = make_normalisers(SPECS)
    seen = graphs["critic_encoder"].run(None, normalisers.observations(SPECS.specs, observation))[0]
    rows = normalisers.action.forward(chunks).reshape(12, *SPECS.chunk_shape)
    inputs = [node.name for node in graphs["critic"].get_inputs()]
    found = graphs["critic"].run(None, dict(zip(inputs, (np.repeat(seen, 4, axis=0), rows))))[0]
    assert found.shape == (12, 3)
    np.testing.assert_allclose(
        found.reshape(3, 4, 3), adapter(critic).values(observation, chunks), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members must be >= 1, got 0"),
        ({"hidden": ()}, "hidden needs at least one width"),
        ({"hidden": (8, 0)}, "hidden needs at least one width"),
        ({"actions": "last"}, "actions 'last' is not one of"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        CriticConfig(**options)


@pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan, math.inf])
def test_returns_without_a_spread_are_refused(deviation):
    with pytest.raises(ConfigError, match="positive deviation"):
        make_critic().set_returns(mean=0.0, deviation=deviation)

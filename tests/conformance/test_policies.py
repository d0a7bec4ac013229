"""Every policy family passes the same suite: specs, seeded determinism, save/load, overfitting, export."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from policy_cases import (
    CASES,
    INSTRUCTIONS,
    case_specs,
    inputs,
    loss_of,
    make_module,
    make_policy,
    save,
    text_encoder,
    tiny_config,
)
from synthetic import make_normalisers, make_windows

from robopolicy import policies
from robopolicy.core.errors import NonFiniteValueError, RobopolicyError, ShapeError, SpecError
from robopolicy.core.policy import Context, Policy, draw_noise, keyed_rng
from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.export.parity import TOLERANCE, compare, random_observations
from robopolicy.models.policy_module import TorchPolicy
from robopolicy.policies._saved import load_policy
from robopolicy.runtime import BundlePolicy, Producer, load_bundle, write_bundle

FAMILIES = policies.names()
pytestmark = [pytest.mark.parametrize("family", FAMILIES), pytest.mark.usefixtures("one_thread")]
every_case = pytest.mark.parametrize("case", CASES)
least_and_most = pytest.mark.parametrize("case", ["state", "everything"])


def test_config_is_frozen(family):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config(family).anything = 1


@every_case
def test_it_is_a_policy_and_gives_chunks_of_its_specs(family, case):
    policy = make_policy(family, case)
    assert isinstance(policy, Policy)
    assert policy.policy_specs.specs == case_specs(case).specs
    assert policy.policy_specs.instruction_dim == case_specs(case).instruction_dim
    candidates = policy.sample(*inputs(policy))
    assert candidates.shape == (2, 3, *policy.policy_specs.chunk_shape)
    assert candidates.dtype == np.float32 and np.isfinite(candidates).all()


@every_case
def test_its_features_are_one_vector_for_each_window(family, case):
    policy = make_policy(family, case)
    observation, _, context = inputs(policy, batch=3)
    features = policy.features(observation, context)
    assert features.ndim == 2 and len(features) == 3 and features.dtype == np.float32
    one = {name: value[1:2] for name, value in observation.items()}
    alone = policy.features(one, Context(context.instruction[1:2]))
    np.testing.assert_allclose(alone[0], features[1], rtol=0, atol=TOLERANCE)


@least_and_most
def test_same_inputs_give_the_same_candidates_and_other_noise_gives_others(family, case):
    policy, twin = (make_policy(family, case) for _ in range(2))
    observation, noise, context = inputs(policy)
    first = policy.sample(observation, noise, context)
    torch.manual_seed(1)  # whatever else uses the global generator
    np.testing.assert_array_equal(policy.sample(observation, noise, context), first)
    np.testing.assert_array_equal(twin.sample(observation, noise, context), first)
    if math.prod(policy.policy_specs.noise_shape):
        _, other, _ = inputs(policy, seed=9)
        assert (policy.sample(observation, other, context) != first).any()
    else:
        np.testing.assert_array_equal(first, first[:, :1].repeat(3, axis=1))


def test_every_input_matters(family):
    policy = make_policy(family, "everything")
    observation, noise, context = inputs(policy)
    before = policy.sample(observation, noise, context)
    for name, value in observation.items():
        other = 255 - value if value.dtype == np.uint8 else -value
        assert (policy.sample({**observation, name: other}, noise, context) != before).any(), name
    swapped = policy.sample(observation, noise, Context(context.instruction[::-1]))
    assert (swapped != before).any()
    paraphrased = policy.sample(observation, noise, Context(("raise the crimson block",)))
    assert (paraphrased != before).any()


def test_rows_and_candidates_do_not_mix(family):
    policy = make_policy(family, "everything")
    observation, noise, context = inputs(policy, batch=3, n=4)
    whole = policy.sample(observation, noise, context)
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in observation.items()}
        told = Context(context.instruction[row : row + 1])
        for n in range(4):
            alone = policy.sample(one, noise[row : row + 1, n : n + 1], told)
            np.testing.assert_allclose(alone[0, 0], whole[row, n], rtol=0, atol=TOLERANCE)


def test_inputs_that_break_the_specs_are_refused(family):
    policy = make_policy(family, "instruction")
    observation, noise, context = inputs(policy)
    with pytest.raises(ShapeError, match="goal"):
        policy.sample({**observation, "goal": observation["goal"][:, :1]}, noise, context)
    with pytest.raises(ShapeError, match="noise"):
        policy.sample(observation, noise[..., None], context)
    with pytest.raises(NonFiniteValueError, match="joints"):
        not_numbers = np.full_like(observation["joints"], np.nan)
        policy.sample({**observation, "joints": not_numbers}, noise, context)
    with pytest.raises(SpecError, match="lacks"):
        policy.sample({"goal": observation["goal"]}, noise, context)
    with pytest.raises(SpecError, match="got none"):
        policy.sample(observation, noise)
    with pytest.raises(ShapeError, match="3 instructions for 2"):
        policy.sample(observation, noise, Context(INSTRUCTIONS))


def test_a_text_encoder_of_another_size_is_refused(family):
    specs = dataclasses.replace(case_specs("instruction"), instruction_dim=8)
    module = policies.family(family).build(tiny_config(family), specs)
    with pytest.raises(SpecError, match=f"takes instructions of 8 numbers.* gives {text_encoder().dim}"):
        TorchPolicy(module, make_normalisers(specs), text_encoder=text_encoder())


@least_and_most
def test_saved_and_loaded_it_gives_the_same_bits(family, case, tmp_path):
    policy = make_policy(family, case)
    save(policy, family, case, tmp_path / "policy")
    for folder in (tmp_path, tmp_path / "policy"):  # a run, or the policy in it
        loaded = load_policy(folder)
        assert loaded.policy_specs == policy.policy_specs
        assert loaded.normalisers == policy.normalisers
        np.testing.assert_array_equal(loaded.sample(*inputs(policy)), policy.sample(*inputs(policy)))
    files = {path.suffix for path in (tmp_path / "policy").iterdir() if path.is_file()}
    assert files == {".json", ".safetensors"}


@pytest.mark.parametrize("name", ["policy.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "removed", "other"])
def test_a_damaged_save_is_refused_by_its_path(family, tmp_path, name, damage):
    save(make_policy(family), family, "state", tmp_path)
    path = tmp_path / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "removed":
        path.unlink()
    else:
        save(make_policy(family, "camera"), family, "camera", tmp_path / "other")
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(RobopolicyError, match=str(tmp_path)):
        load_policy(tmp_path)


@least_and_most
@pytest.mark.parametrize("training", [True, False], ids=["training", "held_out"])
def test_the_generator_alone_decides_the_loss(family, case, training):
    module, twin = (make_module(family, case).train(training) for _ in range(2))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = loss_of(module)
    assert torch.equal(torch.get_rng_state(), before), "draws from the global generator"
    torch.manual_seed(2)
    assert torch.equal(loss_of(twin), first)
    assert first.shape == () and first.dtype == torch.float32 and first.isfinite()


def test_the_loss_moves_every_weight(family):
    """Over a few batches: an expert may well have no row in one of them."""
    module = make_policy(family, "everything").module.train()
    for seed in range(8):
        loss_of(module, seed).backward()
    gradients = {name: weight.grad for name, weight in module.named_parameters() if weight.requires_grad}
    assert gradients
    assert not [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]


def test_metrics_are_finite_numbers(family):
    module = make_module(family, "everything").train()
    loss_of(module).backward()
    found = module.metrics()
    assert all(isinstance(name, str) and type(value) is float for name, value in found.items())
    assert np.isfinite(list(found.values())).all()


def test_it_trains_in_bfloat16(family):
    module = make_module(family, "everything").train()
    exact = loss_of(module)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss_of(module)
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), abs=0.1)


def test_it_overfits_one_batch(family):
    """A few observations, one chunk each: the loss falls and sampling gives these chunks back."""
    module = make_module(family).train()
    specs = module.policy_specs
    normalisers = make_normalisers(specs)
    observation = make_windows(specs, 4, seed=1)
    low_high = np.linspace(-0.8, 0.8, 4 * 8 * 3, dtype=np.float32)
    target = torch.from_numpy(keyed_rng(0).permutation(low_high).reshape(4, *specs.chunk_shape))
    tensors = {k: torch.from_numpy(v) for k, v in normalisers.observations(specs.specs, observation).items()}
    mask = torch.ones(target.shape[:2], dtype=torch.bool)
    copies = 8  # of the batch in each step, with noise of their own
    tensors = {name: value.repeat(copies, 1, 1) for name, value in tensors.items()}
    generator = torch.Generator().manual_seed(0)
    steps = 600
    optimiser = torch.optim.AdamW(module.parameters(), 3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for _ in range(steps):
        condition = module.encode(tensors, generator)
        loss = module.loss(condition, target.repeat(copies, 1, 1), mask.repeat(copies, 1), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) / 20
    policy = TorchPolicy(module, normalisers)
    noise = np.stack([draw_noise(policy.policy_specs, 5, keyed_rng(row)) for row in range(4)])
    found = normalisers.action.forward(policy.sample(observation, noise))
    assert np.abs(found - target.numpy()[:, None]).mean() < 0.05


@pytest.mark.parametrize(("case", "form"), [("state", "step"), ("everything", "unrolled")])
def test_exported_to_onnx_it_gives_the_same_chunks(family, case, form, tmp_path):
    policy = make_policy(family, case)
    if not policy.module.iterates:
        form = "unrolled"  # it has no step
    steps = step_rows(policy.module).tolist() if form == "step" else []
    bundle = write_bundle(
        tmp_path / "bundle",
        policy_specs=policy.policy_specs,
        normalisers=policy.normalisers,
        graphs=export_graphs(policy.module, form=form),
        steps=tuple(map(tuple, steps)),
        policy=family,
        denoising_steps=len(policy.module.steps),
        producer=Producer("test", "", {}, {}),
        text_encoder=policy.text_encoder,
    )
    exported = BundlePolicy(load_bundle(bundle.directory))
    assert isinstance(exported, Policy)
    assert exported.policy_specs == policy.policy_specs
    scale = np.asarray(policy.normalisers.action.scale)
    windows = random_observations(policy.policy_specs, policy.normalisers, 2)
    parity = compare(policy, exported, windows, scale)  # 1 and 16 candidates
    assert parity.max_abs <= TOLERANCE
    assert parity.chunks == 34 * (1 + policy.policy_specs.takes_prefix)
    given = inputs(policy, batch=3, n=2)  # no size is frozen in the graphs
    difference = exported.sample(*given) - policy.sample(*given)
    assert np.abs(difference / scale).max() <= TOLERANCE

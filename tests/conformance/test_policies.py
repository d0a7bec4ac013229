"""Every policy family passes the same suite: specs, seeded determinism, save/load, overfitting, export."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_windows

from robopolicy import policies
from robopolicy.core.errors import NonFiniteValueError, RobopolicyError, ShapeError, SpecError
from robopolicy.core.policy import Policy, draw_noise, keyed_rng
from robopolicy.export.onnx import export_graphs, step_rows
from robopolicy.export.parity import TOLERANCE, compare, random_observations
from robopolicy.models.policy_module import PolicyModule, TorchPolicy
from robopolicy.policies._saved import load_policy, save_policy
from robopolicy.runtime import BundlePolicy, Producer, load_bundle, write_bundle

FAMILIES = policies.names()
#: Options that make a family small, taken where its Config has a field of that name.
TINY = {
    "channels": (16, 32),
    "step_embedding": 16,
    "training_steps": 50,
    "denoising_steps": 5,
    "vision_channels": (8, 16),
    "keypoints": 8,
}
pytestmark = [pytest.mark.parametrize("family", FAMILIES), pytest.mark.usefixtures("one_thread")]
with_and_without_images = pytest.mark.parametrize("image", [False, True], ids=["state", "image"])


def tiny_config(family: str):
    config_type = policies.family(family).Config
    known = {f.name for f in dataclasses.fields(config_type)}
    return config_type(**{name: value for name, value in TINY.items() if name in known})


def make_policy(family: str, *, image: bool = False, seed: int = 0) -> TorchPolicy:
    """An untrained policy; weights are shaken so that no layer that starts at zero hides an error."""
    torch.manual_seed(seed)
    specs = make_policy_specs(image=image)
    module: PolicyModule = policies.family(family).build(tiny_config(family), specs)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return TorchPolicy(module, make_normalisers(module.policy_specs))


def inputs(policy: Policy, batch: int = 2, n: int = 3, seed: int = 0):
    specs = policy.policy_specs
    noise = np.stack([draw_noise(specs, n, keyed_rng(seed, row)) for row in range(batch)])
    return make_windows(specs, batch), noise


def test_config_is_frozen(family):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config(family).anything = 1


@with_and_without_images
def test_it_is_a_policy_and_gives_chunks_of_its_specs(family, image):
    policy = make_policy(family, image=image)
    assert isinstance(policy, Policy)
    assert policy.policy_specs.specs == make_policy_specs(image=image).specs
    candidates = policy.sample(*inputs(policy))
    assert candidates.shape == (2, 3, *policy.policy_specs.chunk_shape)
    assert candidates.dtype == np.float32 and np.isfinite(candidates).all()


@with_and_without_images
def test_same_inputs_give_the_same_candidates_and_other_noise_gives_others(family, image):
    policy, twin = (make_policy(family, image=image) for _ in range(2))
    observation, noise = inputs(policy)
    first = policy.sample(observation, noise)
    torch.manual_seed(1)  # whatever else uses the global generator
    np.testing.assert_array_equal(policy.sample(observation, noise), first)
    np.testing.assert_array_equal(twin.sample(observation, noise), first)
    if policy.policy_specs.noise_shape:
        _, other = inputs(policy, seed=9)
        assert (policy.sample(observation, other) != first).any()


@with_and_without_images
def test_every_observation_matters(family, image):
    policy = make_policy(family, image=image)
    observation, noise = inputs(policy)
    before = policy.sample(observation, noise)
    for name, value in observation.items():
        other = 255 - value if value.dtype == np.uint8 else -value
        assert (policy.sample({**observation, name: other}, noise) != before).any(), name


def test_rows_and_candidates_do_not_mix(family):
    policy = make_policy(family)
    observation, noise = inputs(policy, batch=3, n=4)
    whole = policy.sample(observation, noise)
    for row in range(3):
        for n in range(4):
            alone = policy.sample(
                {name: value[row : row + 1] for name, value in observation.items()},
                noise[row : row + 1, n : n + 1],
            )
            np.testing.assert_allclose(alone[0, 0], whole[row, n], rtol=0, atol=TOLERANCE)


def test_inputs_that_break_the_specs_are_refused(family):
    policy = make_policy(family)
    observation, noise = inputs(policy)
    with pytest.raises(ShapeError, match="goal"):
        policy.sample({**observation, "goal": observation["goal"][:, :1]}, noise)
    with pytest.raises(ShapeError, match="noise"):
        policy.sample(observation, noise[..., :-1])
    with pytest.raises(NonFiniteValueError, match="joints"):
        policy.sample({**observation, "joints": np.full_like(observation["joints"], np.nan)}, noise)
    with pytest.raises(SpecError, match="lacks"):
        policy.sample({"goal": observation["goal"]}, noise)


def save(policy: TorchPolicy, family: str, folder) -> None:
    save_policy(
        folder,
        family=family,
        config=tiny_config(family),
        specs=policy.policy_specs,
        normalisers=policy.normalisers,
        weights=policy.module.state_dict(),
    )


@with_and_without_images
def test_saved_and_loaded_it_gives_the_same_bits(family, image, tmp_path):
    policy = make_policy(family, image=image)
    save(policy, family, tmp_path / "policy")
    for folder in (tmp_path, tmp_path / "policy"):  # a run, or the policy in it
        loaded = load_policy(folder)
        assert loaded.policy_specs == policy.policy_specs
        assert loaded.normalisers == policy.normalisers
        np.testing.assert_array_equal(loaded.sample(*inputs(policy)), policy.sample(*inputs(policy)))
    assert {p.suffix for p in (tmp_path / "policy").iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("name", ["policy.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "removed", "other"])
def test_a_damaged_save_is_refused_by_its_path(family, tmp_path, name, damage):
    save(make_policy(family), family, tmp_path)
    path = tmp_path / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "removed":
        path.unlink()
    else:
        save(make_policy(family, image=True), family, tmp_path / "other")
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(RobopolicyError, match=str(tmp_path)):
        load_policy(tmp_path)


def test_it_overfits_one_batch(family):
    """A few observations, one chunk each: the loss falls and sampling gives these chunks back."""
    specs = make_policy_specs()
    torch.manual_seed(0)
    module: PolicyModule = policies.family(family).build(tiny_config(family), specs)
    normalisers = make_normalisers(specs)
    observation = make_windows(specs, 4, seed=1)
    low_high = np.linspace(-0.8, 0.8, 4 * 8 * 3, dtype=np.float32)
    target = torch.from_numpy(keyed_rng(0).permutation(low_high).reshape(4, *specs.chunk_shape))
    tensors = {k: torch.from_numpy(v) for k, v in normalisers.observations(specs.specs, observation).items()}
    mask = torch.ones(target.shape[:2], dtype=torch.bool)
    copies = 8  # of the batch in each step, with noise of their own
    tensors = {name: value.repeat(copies, 1, 1) for name, value in tensors.items()}
    generator = torch.Generator().manual_seed(0)
    steps = 400
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


@pytest.mark.parametrize(("image", "form"), [(False, "step"), (True, "unrolled")], ids=["step", "image"])
def test_exported_to_onnx_it_gives_the_same_chunks(family, image, form, tmp_path):
    policy = make_policy(family, image=image)
    if type(policy.module).sample is not PolicyModule.sample:
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
    )
    exported = BundlePolicy(load_bundle(bundle.directory))
    assert isinstance(exported, Policy)
    assert exported.policy_specs == policy.policy_specs
    scale = np.asarray(policy.normalisers.action.scale)
    windows = random_observations(policy.policy_specs, policy.normalisers, 2)
    parity = compare(policy, exported, windows, scale)  # 1 and 16 candidates
    assert parity.max_abs <= TOLERANCE
    assert parity.chunks == 34 * (1 + policy.policy_specs.takes_prefix)
    observation, noise = inputs(policy, batch=3, n=2)  # no size is frozen in the graphs
    difference = exported.sample(observation, noise) - policy.sample(observation, noise)
    assert np.abs(difference / scale).max() <= TOLERANCE

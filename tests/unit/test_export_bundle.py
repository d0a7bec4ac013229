"""A bundle appears only when it agrees with the torch policy it came from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from synthetic import make_episode, make_normalisers, make_policy_specs, make_specs, make_windows

from robopolicy.core.errors import RobopolicyError, RunExistsError, StoreError
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import NO_CONTEXT, draw_noise, keyed_rng
from robopolicy.core.specs import ArraySpec, PolicySpecs, Specs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.export import bundle as module
from robopolicy.export.bundle import export_bundle
from robopolicy.export.onnx import export_graphs
from robopolicy.export.parity import TOLERANCE, ParityError, compare, random_observations
from robopolicy.policies._saved import load_policy, save_policy
from robopolicy.policies.diffusion_unet import Config, DiffusionUNet, build
from robopolicy.runtime import BundlePolicy, load_bundle

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Config(channels=(16, 32), step_embedding=8, training_steps=20, denoising_steps=3)


def save_run(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    policy = build(TINY, make_policy_specs())
    save_policy(
        folder / "policy",
        family="diffusion_unet",
        config=TINY,
        specs=policy.policy_specs,
        normalisers=make_normalisers(policy.policy_specs),
        weights=policy.state_dict(),
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "walker")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    specs = make_specs(image=True)  # more observations than the policy uses
    store = EpisodeStore.create(tmp_path_factory.mktemp("store") / "s.zarr", specs)
    for seed in range(2):
        store.append(make_episode(specs, 10, seed))
    return store.path


def test_the_bundle_is_the_policy_without_torch(run, store, tmp_path):
    neighbour = tmp_path / "bundle.unchecked" / "precious"  # once the name of the draft, swept away
    neighbour.parent.mkdir()
    neighbour.write_text("mine")
    parity = export_bundle(run, tmp_path / "bundle", store=store)
    assert neighbour.read_text() == "mine"
    assert parity.max_abs <= TOLERANCE and np.isfinite(parity.max_abs_physical)
    assert parity.chunks == (8 + 8) * (1 + 16)  # random and recorded windows, 1 and 16 candidates
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.producer.run == "walker"
    assert bundle.manifest.policy == "diffusion_unet" and bundle.manifest.denoising_steps == 3
    policy = load_policy(run)
    assert bundle.policy_specs == policy.policy_specs and bundle.normalisers == policy.normalisers
    noise = draw_noise(policy.policy_specs, 4, keyed_rng(0))[None]
    observation = make_windows(policy.policy_specs, 1)
    difference = BundlePolicy(bundle).sample(observation, noise) - policy.sample(observation, noise)
    assert np.abs(difference).max() <= TOLERANCE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "bundle.unchecked"]


def test_graphs_of_other_weights_are_refused_and_leave_nothing(run, tmp_path, monkeypatch):
    other = load_policy(save_run(tmp_path / "other", seed=1))
    monkeypatch.setattr(module, "export_graphs", lambda _: export_graphs(other.module))
    with pytest.raises(ParityError, match=r"differ from torch by .*e.*, more than 1e-04"):
        export_bundle(run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]


def test_an_existing_output_is_refused(run, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "precious").write_text("mine")
    with pytest.raises(RunExistsError, match="already exists"):
        export_bundle(run, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "precious").read_text() == "mine"


def test_without_a_policy_or_a_store_nothing_is_written(run, tmp_path):
    with pytest.raises(RobopolicyError, match=r"no policy\.json"):
        export_bundle(tmp_path / "absent", tmp_path / "bundle")
    with pytest.raises(StoreError, match="no store"):
        export_bundle(run, tmp_path / "bundle", store=tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


class Shifted:
    """A policy that gives what another gives, and a little more."""

    def __init__(self, policy, shift):
        self.policy, self.shift, self.policy_specs = policy, shift, policy.policy_specs

    def sample(self, observation, noise, context=NO_CONTEXT):
        return self.policy.sample(observation, noise, context) + np.float32(self.shift)


def test_differences_are_measured_in_the_range_of_the_data(run):
    policy = load_policy(run)
    windows = random_observations(policy.policy_specs, policy.normalisers, 2)
    scale = np.array([1.0, 1.0, 0.01])  # a gripper moves centimetres, the joints a radian
    parity = compare(policy, Shifted(policy, 1e-3), windows, scale, tolerance=1.0)
    assert parity.max_abs == pytest.approx(0.1, rel=1e-2)
    assert parity.max_abs_physical == pytest.approx(1e-3, rel=1e-2)
    for shift in (1e-3, np.nan):
        with pytest.raises(ParityError):
            compare(policy, Shifted(policy, shift), windows, scale)


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 2)])
@pytest.mark.parametrize("angles", [(), (0,)])
def test_random_windows_fit_the_specs_and_reach_beyond_the_data(shape, angles):
    spec = ArraySpec(shape, angles=angles)
    base = make_policy_specs()
    specs = PolicySpecs(Specs({"s": spec}, base.specs.action, 10.0), base.horizons)
    data = {"s": np.random.default_rng(0).uniform(-1, 1, (50, *shape)).astype(np.float32)}
    normalisers = Normalisers.fit(specs.specs, data, np.zeros((50, 3)), "min_max")
    windows = random_observations(specs, normalisers, 40)
    assert all(w["s"].shape == (2, *shape) and w["s"].dtype == np.float32 for w in windows)
    largest = max(float(np.abs(w["s"]).max()) for w in windows)
    assert 1 < largest < 1.3
    first, again = (random_observations(specs, normalisers, 3, seed=4) for _ in range(2))
    assert all((a["s"] == b["s"]).all() for a, b in zip(first, again))


def test_config_survives_a_change_of_defaults(run):
    """What was saved is used, not today's defaults."""
    assert load_policy(run).module.config == dataclasses.replace(TINY)


def test_a_bundle_tells_nothing_about_the_machine_it_was_made_on(run, tmp_path):
    export_bundle(run, tmp_path / "bundle")
    for graph in load_bundle(tmp_path / "bundle").graphs.values():
        assert b"site-packages" not in graph and str(Path(module.__file__).parents[2]).encode() not in graph


class OneShot(DiffusionUNet):
    """A policy that defines ``sample`` itself, with noise of its own shape."""

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        super().__init__(config, specs)
        self.policy_specs = dataclasses.replace(self.policy_specs, noise_shape=(4,))
        self.head = torch.nn.Linear(self.conditioning_dim + 4, int(np.prod(specs.chunk_shape)))

    def sample(self, conditioning: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        flat = self.head(torch.cat([conditioning, noise], dim=-1))
        return flat.reshape(-1, *self.policy_specs.chunk_shape)


def test_a_policy_that_samples_in_its_own_way_is_exported_as_it_is():
    torch.manual_seed(0)
    policy = OneShot(TINY, make_policy_specs()).eval()
    session = onnxruntime.InferenceSession(export_graphs(policy)["sampler"])
    assert {i.name: i.shape[1:] for i in session.get_inputs()}["noise"] == [4]
    for rows in (1, 5):
        conditioning, noise = torch.randn(rows, policy.conditioning_dim), torch.randn(rows, 4)
        given = {"conditioning": conditioning.numpy(), "noise": noise.numpy()}
        with torch.inference_mode():
            expected = policy.sample(conditioning, noise).numpy()
        np.testing.assert_allclose(session.run(None, given)[0], expected, atol=1e-5)

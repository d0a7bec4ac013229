"""A bundle appears only when it agrees with the torch policy it came from."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from synthetic import make_episode, make_normalisers, make_policy_specs, make_specs, make_windows

from robopolicy.core.errors import ConfigError, RobopolicyError, RunExistsError, StoreError
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.policy import NO_CONTEXT, draw_noise, keyed_rng
from robopolicy.core.specs import ArraySpec, PolicySpecs, Specs
from robopolicy.datasets.store import EpisodeStore
from robopolicy.evaluation.comparison import compare as compare_success
from robopolicy.evaluation.results import EpisodeResult
from robopolicy.export import bundle as module
from robopolicy.export.bundle import export_bundle
from robopolicy.export.closed_loop import ClosedLoop
from robopolicy.export.onnx import export_graphs
from robopolicy.export.options import ExportOptions, with_denoising_steps
from robopolicy.export.parity import TOLERANCE, Parity, ParityError, compare, random_observations
from robopolicy.models.critic_module import CriticModule, TorchCritic
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.policy_module import TorchPolicy
from robopolicy.policies._saved import load_policy, save_policy
from robopolicy.policies.diffusion_unet import Config, DiffusionUNet, build
from robopolicy.runtime import BundlePolicy, load_bundle

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Config(
    channels=(16, 32), step_embedding=8, schedule=ScheduleConfig(training_steps=20, denoising_steps=3)
)


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
    return save_run(tmp_path_factory.mktemp("runs") / "walker", seed=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    specs = make_specs(image=True)  # more observations than the policy uses
    store = EpisodeStore.create(tmp_path_factory.mktemp("store") / "s.zarr", specs)
    for seed in range(2):
        store.append(make_episode(specs, 10, seed))
    return store.path


@pytest.fixture(scope="module")
def exported(run, store, tmp_path_factory) -> tuple[Path, Parity]:
    """Both forms, compared on random and recorded windows, with a critic."""
    folder = tmp_path_factory.mktemp("exported")
    neighbour = folder / "bundle.unchecked" / "precious"  # once the name of the draft, swept away
    neighbour.parent.mkdir()
    neighbour.write_text("mine")
    ticks = itertools.count(0, 1_000_000)
    critic = tiny_critic(load_policy(run))
    parity = export_bundle(run, folder / "bundle", store=store, critic=critic, clock=lambda: next(ticks))
    assert neighbour.read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir()) == ["bundle", "bundle.unchecked"]
    return folder / "bundle", parity


class TinyCritic(CriticModule):
    """Linear in the observation and the chunk, with its own weights."""

    def __init__(self, specs: PolicySpecs) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.policy_specs = specs
        seen = sum(s.num_features for s in specs.specs.observation.values()) * specs.horizons.observation
        self.embed = torch.nn.Linear(seen, 4)
        self.head = torch.nn.Linear(4 + int(np.prod(specs.chunk_shape)), 2)

    def encode(self, observation, generator=None) -> torch.Tensor:
        names = self.policy_specs.specs.observation
        return self.embed(torch.cat([observation[name].flatten(1) for name in names], dim=-1)).tanh()

    def value(self, conditioning: torch.Tensor, chunk: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([conditioning, chunk.flatten(1)], dim=-1))


def tiny_critic(policy: TorchPolicy) -> TorchCritic:
    """Trained on other episodes than the policy: with normalisers of its own."""
    action = policy.normalisers.action
    wider = Affine(action.offset, tuple(1.3 * scale for scale in action.scale))
    return TorchCritic(
        TinyCritic(policy.policy_specs),
        dataclasses.replace(policy.normalisers, action=wider),
        digest="abc",
        facts={"objective": "iql"},
    )


def test_the_bundle_is_the_policy_without_torch(run, exported):
    path, parity = exported
    assert parity.max_abs <= TOLERANCE and np.isfinite(parity.max_abs_physical)
    # random and recorded windows, 1 and 16 candidates, with a prefix and without
    assert parity.chunks == (8 + 8) * (1 + 16) * 2
    bundle = load_bundle(path)
    assert bundle.manifest.producer.run == "walker"
    assert bundle.manifest.policy == "diffusion_unet" and bundle.manifest.denoising_steps == 3
    policy = load_policy(run)
    assert bundle.policy_specs == policy.policy_specs and bundle.normalisers == policy.normalisers
    noise = draw_noise(policy.policy_specs, 4, keyed_rng(0))[None]
    observation = make_windows(policy.policy_specs, 1)
    difference = BundlePolicy(bundle).sample(observation, noise) - policy.sample(observation, noise)
    assert np.abs(difference).max() <= TOLERANCE


def test_the_measurement_decides_and_is_recorded(exported):
    """By a clock on which both forms take as long: then the step form is taken, which starts faster."""
    manifest = load_bundle(exported[0]).manifest
    assert manifest.features == ("step", "critic") and len(manifest.steps) == 3
    assert {manifest.measured[f"latency_ms.{f}.k{k}"] for f in ("step", "unrolled") for k in (1, 16)} == {1.0}
    cases = {f"parity.{s}.k{k}{p}" for s in ("random", "recorded") for k in (1, 16) for p in ("", ".prefix")}
    rest = {"parity.step.max_abs", "parity.unrolled.max_abs", "parity.critic"}
    assert {name for name in manifest.measured if name.startswith("parity")} == cases | rest
    assert manifest.measured["parity.step.max_abs"] == exported[1].max_abs


def test_values_are_those_of_the_torch_critic(run, exported):
    policy = load_policy(run)
    bundle = BundlePolicy(load_bundle(exported[0]))
    observation = make_windows(policy.policy_specs, 2)
    noise = np.stack([draw_noise(policy.policy_specs, 5, keyed_rng(i)) for i in range(2)])
    candidates = bundle.sample(observation, noise)
    critic = tiny_critic(policy)
    expected = critic.values(observation, candidates)
    assert expected.shape == (2, 5, 2) and expected.std() > 1e-3
    assert bundle.critic_normalisers == critic.critic_normalisers != policy.normalisers
    details = load_bundle(exported[0]).manifest.producer.details
    assert (details["critic_digest"], details["critic_objective"]) == ("abc", "iql")
    np.testing.assert_allclose(bundle.values(observation, candidates), expected, atol=1e-5)


def test_fewer_steps_in_less_precision_are_compared_with_torch_at_as_many(run, tmp_path, monkeypatch):
    """And in a closed loop, whose numbers go into the manifest."""
    asked = []

    def compare_in_simulation(torch_policy, bundle_policy, where, console):
        asked.append((len(torch_policy.module.steps), type(bundle_policy), where))
        episodes = [EpisodeResult(seed, True, 1.0, 1.0, 3, 0.3) for seed in range(4)]
        return compare_success({"torch": episodes, "bundle": episodes})

    monkeypatch.setattr(module, "compare_in_simulation", compare_in_simulation)
    options = ExportOptions(form="step", precision="int8", denoising_steps=2, candidates=(1, 3))
    where = ClosedLoop("lift", 4)
    parity = export_bundle(run, tmp_path / "bundle", options=options, closed_loop=where)
    assert set(parity.cases) == {f"random.k{k}{p}" for k in (1, 3) for p in ("", ".prefix")}
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.denoising_steps == len(manifest.steps) == 2
    assert manifest.graphs["step"].precision == "int8"
    assert TOLERANCE < parity.max_abs < options.largest_difference
    assert asked == [(2, BundlePolicy, where)]
    assert manifest.measured["success.torch"] == 1.0 and manifest.producer.details["env"] == "lift"


def test_denoising_steps_are_those_the_schedule_allows(run):
    policy = load_policy(run)
    assert with_denoising_steps(policy, "diffusion_unet", 0) is policy
    assert with_denoising_steps(policy, "diffusion_unet", 3) is policy
    more = with_denoising_steps(policy, "diffusion_unet", 20)
    assert len(more.module.steps) == 20 and len(policy.module.steps) == 3
    for name, weight in policy.module.state_dict().items():
        assert torch.equal(weight, more.module.state_dict()[name])
    with pytest.raises(ConfigError, match=r"denoising_steps 21 not in 1\.\.20"):
        with_denoising_steps(policy, "diffusion_unet", 21)


def test_graphs_of_other_weights_are_refused_and_leave_nothing(run, exported, tmp_path, monkeypatch):
    graphs = dict(load_bundle(exported[0]).graphs)
    model = onnx.load_model_from_string(graphs["step"])
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    altered = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), weight.name)
    weight.CopyFrom(altered)
    other = {"encoder": graphs["encoder"], "step": model.SerializeToString()}
    monkeypatch.setattr(module, "export_graphs", lambda _, **how: other)
    with pytest.raises(ParityError, match=r"differ from torch by .*e.*, more than 1e-04"):
        export_bundle(run, tmp_path / "bundle", options=ExportOptions(form="step"))
    assert list(tmp_path.iterdir()) == []


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


def test_a_bundle_tells_nothing_about_the_machine_it_was_made_on(exported):
    for graph in load_bundle(exported[0]).graphs.values():
        assert b"site-packages" not in graph and str(Path(module.__file__).parents[2]).encode() not in graph


class OneShot(DiffusionUNet):
    """A policy that defines ``sample`` itself, with noise of its own shape."""

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        super().__init__(config, specs)
        self.policy_specs = dataclasses.replace(self.policy_specs, noise_shape=(4,), takes_prefix=False)
        self.head = torch.nn.Linear(self.encoder.dim + 4, int(np.prod(specs.chunk_shape)))

    def prepare(self, conditioning: torch.Tensor) -> torch.Tensor:
        return conditioning

    def sample(self, conditioning: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        flat = self.head(torch.cat([conditioning, noise], dim=-1))
        return flat.reshape(-1, *self.policy_specs.chunk_shape)


def test_a_policy_that_samples_in_its_own_way_is_exported_as_it_is():
    torch.manual_seed(0)
    policy = OneShot(TINY, make_policy_specs()).eval()
    session = onnxruntime.InferenceSession(export_graphs(policy)["sampler"])
    assert {i.name: i.shape[1:] for i in session.get_inputs()}["noise"] == [4]
    for rows in (1, 5):
        conditioning, noise = torch.randn(rows, policy.encoder.dim), torch.randn(rows, 4)
        given = {"conditioning": conditioning.numpy(), "noise": noise.numpy()}
        with torch.inference_mode():
            expected = policy.sample(conditioning, noise).numpy()
        np.testing.assert_allclose(session.run(None, given)[0], expected, atol=1e-5)


class Picking:
    """Gives one of two chunks for each candidate, by the first number of its noise."""

    def __init__(self, specs: PolicySpecs, boundary: float, shift: float = 0.0) -> None:
        self.policy_specs, self.boundary, self.shift = specs, boundary, shift

    def sample(self, observation, noise, context=None):
        picked = np.where(noise[..., :1, :1] > self.boundary, 0.5, -0.5) + self.shift
        return np.broadcast_to(picked, noise.shape).astype(np.float32)


def test_a_few_chunks_of_another_expert_are_told_apart_from_a_wrong_graph(run):
    policy = load_policy(run, "cpu")
    specs, scale = policy.policy_specs, np.ones(policy.policy_specs.chunk_shape[1])
    windows = random_observations(specs, policy.normalisers, 8)
    first = np.sort(
        [
            draw_noise(specs, count, keyed_rng(0, index, count))[i, 0, 0]
            for index in range(8)
            for count in (1, 16)
            for i in range(count)
        ]
    )
    boundary = (first[70] + first[71]) / 2, (first[71] + first[72]) / 2
    both = [Picking(specs, value, shift) for value, shift in zip(boundary, (0.0, 0.01))]
    with pytest.raises(ParityError, match=r"2 of 272 chunks do, the others by at most 1\.00e-02: .* in fp32"):
        compare(*both, windows, scale, tolerance=0.1)
    with pytest.raises(ParityError, match=r"more than 1e-01$"):  # most of them: nothing to excuse
        compare(Picking(specs, -9.0), Picking(specs, 0.0), windows, scale, tolerance=0.1)


def test_a_description_of_another_release_is_called_so(run, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(run / "policy", folder)
    tree = json.loads((folder / "policy.json").read_text())
    tree["config"]["option_of_old"] = 1
    (folder / "policy.json").write_text(json.dumps(tree))
    with pytest.raises(RobopolicyError, match=r"or of another release of robopolicy .*option_of_old"):
        load_policy(folder, "cpu")

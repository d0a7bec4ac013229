"""Samplers that keep more than the chunk, in a policy: specs, prefix, and ONNX parity of the whole chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs
from torch import nn

from robopolicy.core.errors import ConfigError
from robopolicy.export.onnx import export_graphs
from robopolicy.export.parity import TOLERANCE, compare, random_observations
from robopolicy.models.diffusion_module import DiffusionModule
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.observation_encoder import ObservationConfig, ObservationEncoder
from robopolicy.models.policy_module import TorchPolicy
from robopolicy.policies import diffusion_transformer, diffusion_unet
from robopolicy.runtime import BundlePolicy, Producer, load_bundle, write_bundle

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 3


class Denoiser(nn.Module):
    """As little network as has all three inputs: tracing the whole chain is slow."""

    def __init__(self, action_dim: int, conditioning: int) -> None:
        super().__init__()
        self.chunk, self.condition = nn.Linear(action_dim, action_dim), nn.Linear(conditioning, action_dim)

    def forward(self, chunk: torch.Tensor, level: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        return self.chunk(chunk) + self.condition(conditioning)[:, None] * level[:, None, None] / 100


def make(sampler: str) -> TorchPolicy:
    torch.manual_seed(0)
    specs, schedule = make_policy_specs(), ScheduleConfig(sampler=sampler, denoising_steps=STEPS)
    encoder = ObservationEncoder(specs, ObservationConfig())
    module = DiffusionModule(specs, encoder, Denoiser(specs.specs.action.dim, encoder.dim), schedule)
    return TorchPolicy(module, make_normalisers(module.policy_specs))


@pytest.mark.parametrize("family", [diffusion_transformer, diffusion_unet])
@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
def test_families_sample_with_them_from_prepared_conditioning_as_from_the_bare_denoiser(family, sampler):
    schedule = ScheduleConfig(sampler=sampler, denoising_steps=STEPS)
    torch.manual_seed(0)
    module = family.build(family.Config(schedule=schedule), make_policy_specs()).eval()
    specs = module.policy_specs
    assert specs.noise_shape == ((STEPS,) if sampler == "ddpm" else ()) + specs.chunk_shape
    observation = {
        name: torch.rand(2, 2, spec.num_features) for name, spec in specs.specs.observation.items()
    }
    noise = torch.randn(2, *specs.noise_shape)
    with torch.no_grad():
        conditioning = module.encode(observation)
        found = module.sample(module.prepare(conditioning), noise)
        form = module.inference_form()
        torch.testing.assert_close(form.sample(form.prepare(conditioning), noise), found, atol=1e-4, rtol=0)
        bare = make(sampler).module
        bare.denoiser = module.denoiser
        torch.testing.assert_close(bare.sample(conditioning, noise), found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
def test_there_is_no_single_step_to_export(sampler):
    with pytest.raises(ConfigError, match="has no step to export"):
        export_graphs(make(sampler).module, form="step")


@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
def test_exported_to_onnx_the_whole_chain_gives_the_same_chunks(sampler, tmp_path):
    policy = make(sampler)
    bundle = write_bundle(
        tmp_path / "bundle",
        policy_specs=policy.policy_specs,
        normalisers=policy.normalisers,
        graphs=export_graphs(policy.module),
        policy="test",
        denoising_steps=STEPS,
        producer=Producer("test", "", {}, {}),
    )
    exported = BundlePolicy(load_bundle(bundle.directory))
    assert exported.policy_specs == policy.policy_specs
    windows = random_observations(policy.policy_specs, policy.normalisers, 2)
    parity = compare(policy, exported, windows, np.asarray(policy.normalisers.action.scale))
    assert parity.max_abs <= TOLERANCE
    assert parity.chunks == 2 * 34  # with a prefix and without

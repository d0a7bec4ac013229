"""EDM's preconditioning, training density and sampler against their definitions in sigma."""

from __future__ import annotations

import math

import pytest
import torch

from robopolicy.core.errors import ConfigError
from robopolicy.models.ddim import ddim_update
from robopolicy.models.edm import (
    EdmConfig,
    draw_sigma,
    edm_rows,
    inference_sigmas,
    preconditioning,
    training_pair,
)

CONFIG = EdmConfig(sigma_min=0.01, sigma_max=20.0, denoising_steps=6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_network_sees_and_gives_unit_variance_at_every_sigma():
    sigma = torch.tensor([0.01, 0.3, 1.0, 50.0]).repeat_interleave(20_000)
    clean = 0.5 * torch.randn(len(sigma), 1, generator=generator())
    epsilon = torch.randn(len(sigma), 1, generator=generator(1))
    for part in training_pair(clean, epsilon, sigma, 0.5):
        torch.testing.assert_close(part.view(4, -1).std(1), torch.ones(4), rtol=0, atol=0.02)


def test_training_pairs_invert_the_preconditioning():
    clean, epsilon = (torch.randn(5, 4, 2, generator=generator(i)) for i in range(2))
    sigma = torch.logspace(-2, 1, 5)
    chunk, target = training_pair(clean, epsilon, sigma, 0.5)
    c_skip, c_out, c_in = (c[:, None, None] for c in preconditioning(sigma, 0.5))
    torch.testing.assert_close(c_skip * chunk / c_in + c_out * target, clean, rtol=0, atol=1e-4)


def test_sigmas_are_log_logistic_within_the_range():
    sigma = draw_sigma(EdmConfig(sigma_min=0.1, sigma_max=5.0), 100_000, generator())
    assert sigma.min() >= 0.1 and sigma.max() <= 5.0

    def distribution(x: float) -> float:  # of ln sigma, logistic around ln sigma_data
        return 1 / (1 + math.exp(-(math.log(x) - math.log(0.5)) / 0.5))

    for x in (0.2, 0.5, 1.5):
        share = (distribution(x) - distribution(0.1)) / (distribution(5.0) - distribution(0.1))
        assert (sigma <= x).float().mean().item() == pytest.approx(share, abs=0.01)
    assert torch.equal(sigma, draw_sigma(EdmConfig(sigma_min=0.1, sigma_max=5.0), 100_000, generator()))


def test_inference_goes_down_evenly_in_ln_sigma():
    sigmas = inference_sigmas(CONFIG)
    assert sigmas[0].item() == pytest.approx(20) and sigmas[-1].item() == pytest.approx(0.01)
    ratios = sigmas[1:] / sigmas[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(5))
    assert inference_sigmas(EdmConfig(denoising_steps=1)).tolist() == [80.0]


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_rows_are_ddim_in_sigma(steps):
    """x' = clean + sigma'/sigma (x - clean), as k-diffusion writes it, in double precision."""
    config = EdmConfig(sigma_min=0.01, sigma_max=20.0, denoising_steps=steps)
    start = torch.randn(3, 4, 2, generator=generator(), dtype=torch.float64)
    target = 0.9 * torch.rand(3, 4, 2, generator=generator(1), dtype=torch.float64) - 0.45

    def network(scaled: torch.Tensor, sigma: float) -> torch.Tensor:
        return (torch.tanh(scaled) + sigma) / (1 + sigma) * target

    sigmas = inference_sigmas(config)
    x = sigmas[0] * start
    for sigma, following in zip(sigmas, [*sigmas[1:], torch.tensor(0.0)]):
        c_skip, c_out, c_in = preconditioning(sigma, 0.5)
        raw = c_skip * x + c_out * network(c_in * x, float(sigma))
        x = raw.clamp(-1, 1) + following / sigma * (x - raw)
    chunk = start
    for row in edm_rows(config).double():
        chunk = ddim_update(chunk, network(row[8] * chunk, float(row[9])), row[:8])
    torch.testing.assert_close(chunk, x, rtol=0, atol=2e-5)


def test_a_prefix_of_weight_one_is_reached_and_its_noise_kept():
    rows = edm_rows(CONFIG)
    prefix = torch.rand(2, 4, 2, generator=generator()) - 0.5
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(2, 4)
    chunk = torch.randn(2, 4, 2, generator=generator(1))
    for row in rows:
        chunk = ddim_update(chunk, torch.zeros_like(chunk), row[:8], prefix, weight)
    torch.testing.assert_close(chunk[:, :2], prefix[:, :2])
    assert (chunk[:, 2:] != prefix[:, 2:]).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sigma_data", 0.0),
        ("sigma_min", -1.0),
        ("sigma_max", 0.0005),
        ("density_scale", math.nan),
        ("denoising_steps", 0),
    ],
)
def test_bad_options_are_named(field, value):
    with pytest.raises(ConfigError, match=field):
        EdmConfig(**{field: value})

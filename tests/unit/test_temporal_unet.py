"""The U-Net keeps shapes, looks at everything it is given, and treats rows apart."""

from __future__ import annotations

import pytest
import torch
from synthetic import make_policy_specs

from robopolicy.core.errors import ConfigError
from robopolicy.core.horizons import Horizons
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.augmentation import AugmentationConfig
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.models.temporal_unet import NoiseLevelEmbedding, TemporalUNet
from robopolicy.policies.diffusion_unet import Config, build


def make(channels=(8, 16, 24), seed=0) -> TemporalUNet:
    torch.manual_seed(seed)
    return TemporalUNet(3, 5, channels, step_embedding=8).eval()


def chunk_step_condition(rows=4, horizon=16):
    generator = torch.Generator().manual_seed(1)
    chunk = torch.randn(rows, horizon, 3, generator=generator)
    return chunk, torch.arange(rows), torch.randn(rows, 5, generator=generator)


@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 16, 24), (16, 16, 8, 8)])
@pytest.mark.parametrize("horizon", [8, 16, 24])
def test_the_output_has_the_chunks_shape(channels, horizon):
    chunk, step, condition = chunk_step_condition(horizon=horizon)
    assert make(channels)(chunk, step, condition).shape == chunk.shape


def test_chunk_step_and_condition_all_matter_and_reach_every_output():
    network = make()
    chunk, step, condition = chunk_step_condition(rows=1)
    chunk.requires_grad_()
    condition.requires_grad_()
    network(chunk, step, condition)[0, -1].sum().backward()
    assert (chunk.grad != 0).all()  # the last action sees the first
    assert (condition.grad != 0).all()
    with torch.no_grad():
        assert (network(chunk, step, condition) != network(chunk, step + 1, condition)).any()


def test_rows_do_not_mix():
    network = make()
    chunk, step, condition = chunk_step_condition()
    with torch.no_grad():
        whole = network(chunk, step, condition)
        for row in range(len(chunk)):
            one = slice(row, row + 1)
            torch.testing.assert_close(network(chunk[one], step[one], condition[one]), whole[one])


def test_a_blocks_film_is_linear_in_observation_and_step_together():
    """The two shares add up to each block's own layer on the concatenation, as the paper has it."""
    network = make()
    _, step, condition = chunk_step_condition()
    with torch.no_grad():
        film = network.film_of_conditioning(condition) + network.film_of_step(step)
        context = torch.cat([condition, network.embed_step(step)], dim=-1)
        expected = torch.cat([block.film(context) for block in network.film_blocks], dim=-1)
    assert film.shape[1] == sum(network.film_sizes)
    torch.testing.assert_close(film, expected)


def test_one_step_for_all_rows_is_that_step_for_each():
    network = make()
    chunk, _, condition = chunk_step_condition()
    with torch.no_grad():
        shared = network(chunk, torch.tensor([7]), condition)
        torch.testing.assert_close(shared, network(chunk, torch.full((4,), 7), condition))


def test_noise_levels_are_told_apart():
    embedding = NoiseLevelEmbedding(16)
    rows = embedding(torch.arange(100))
    assert torch.isfinite(rows).all()
    assert (torch.cdist(rows, rows) + torch.eye(100) > 0).all()


@pytest.mark.parametrize("horizon", [2, 6, 15])
def test_a_horizon_that_cannot_be_halved_is_refused_with_the_multiple(horizon):
    specs = PolicySpecs(make_policy_specs().specs, Horizons(1, horizon, 1))
    with pytest.raises(ConfigError, match=f"horizon {horizon} must be a multiple of 4 for 3"):
        build(Config(), specs)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (Config, {"channels": ()}, "channels"),
        (Config, {"channels": (12, 24)}, "channels.*multiples of 8"),
        (Config, {"step_embedding": 2}, "step_embedding"),
        (Config, {"step_embedding": 17}, "step_embedding"),
        (ObservationConfig, {"crop": 0.0}, "crop"),
        (ObservationConfig, {"crop": 1.5}, "crop"),
        (ObservationConfig, {"vision_channels": (4,)}, "vision_channels.*multiples of 8"),
        (ObservationConfig, {"keypoints": 0}, "keypoints"),
        (AugmentationConfig, {"state_noise": -0.1}, "state_noise"),
    ],
)
def test_an_impossible_config_is_refused_by_field(config, options, message):
    with pytest.raises(ConfigError, match=message):
        config(**options)

"""The form for inference engines computes what the trained network does, layer by layer and as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from robopolicy.models.temporal_unet import ConvBlock, TemporalUNet
from robopolicy.models.temporal_unet_inference import (
    InferenceConvBlock,
    InferenceUNet,
    WindowProduct,
    mish_of_minus,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """In double precision, with weights such that no layer that starts at zero or one hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.double().parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return module.eval()


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def channels_first(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layer(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(
    ("taps", "stride", "padding"), [(5, 1, 2), (3, 1, 1), (3, 2, 1), (1, 1, 0), (3, 1, 0), (4, 3, 2)]
)
@pytest.mark.parametrize("horizon", [4, 7, 16])
def test_a_convolution_is_one_product_over_windows(taps, stride, padding, horizon):
    layer = shaken(nn.Conv1d(3, 8, taps, stride=stride, padding=padding))
    product = WindowProduct.of_convolution(layer, horizon)
    x = random(5, horizon, 3)
    expected = channels_first(layer, x)
    assert product.horizon_out == expected.shape[1]
    torch.testing.assert_close(product(x), expected)


@pytest.mark.parametrize(("taps", "stride", "padding"), [(4, 2, 1), (2, 2, 0), (6, 2, 2), (5, 3, 1)])
@pytest.mark.parametrize("horizon", [1, 4, 7])
def test_so_is_a_transposed_one(taps, stride, padding, horizon):
    layer = shaken(nn.ConvTranspose1d(3, 8, taps, stride=stride, padding=padding))
    x = random(5, horizon, 3)
    torch.testing.assert_close(WindowProduct.of_transposed(layer, horizon)(x), channels_first(layer, x))


def test_a_block_is_convolution_group_norm_and_mish():
    block = shaken(ConvBlock(6, 16, 5, groups=4))
    x = 3 * random(4, 8, 6) + 2
    torch.testing.assert_close(InferenceConvBlock(block, 8)(x), channels_first(block, x))


def test_mish_is_right_far_out_and_never_overflows():
    x = torch.cat([torch.linspace(-40, 40, 4001), torch.tensor([-3e4, -1e3, 1e3, 3e4])])
    torch.testing.assert_close(mish_of_minus(-x.double()), functional.mish(x.double()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mish_of_minus(-x), functional.mish(x), rtol=1e-6, atol=1e-6)
    assert torch.isfinite(mish_of_minus(-x.half())).all()


@pytest.mark.parametrize(
    ("channels", "horizon"), [((8,), 5), ((8, 16), 6), ((8, 16, 24), 16), ((16, 16, 8, 8), 16)]
)
def test_the_whole_network_agrees_at_every_level_of_noise(channels, horizon):
    network = shaken(TemporalUNet(3, 7, channels, step_embedding=8))
    levels = torch.tensor([90, 40, 0])
    form = InferenceUNet(network, horizon, levels).double()
    chunk, conditioning = random(5, horizon, 3), random(5, 7, seed=2)
    with torch.no_grad():
        film = form.film_of_conditioning(conditioning)
        torch.testing.assert_close(film, network.film_of_conditioning(conditioning))
        for i, level in enumerate(levels):
            expected = network(chunk, level[None], conditioning)
            torch.testing.assert_close(form(chunk, torch.tensor([i]), film), expected)


def test_the_form_does_not_follow_later_training():
    network = shaken(TemporalUNet(3, 7, (8,), step_embedding=8))
    form = InferenceUNet(network, 8, torch.tensor([0])).double()
    chunk, film, step = random(2, 8, 3), form.film_of_conditioning(random(2, 7)), torch.tensor([0])
    before = form(chunk, step, film)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    torch.testing.assert_close(form(chunk, step, film), before, rtol=0, atol=0)

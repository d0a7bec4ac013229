"""Products and torch's own convolutions give the same, forward and backward; and which of them is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robopolicy.models import convolution
from robopolicy.models.convolution import Convolution, TransposedConvolution

LAYERS = {
    "kernel 5": lambda kind: kind(12, 40, 5, padding=2),
    "halving": lambda kind: kind(12, 40, 3, stride=2, padding=1),
    "kernel 1": lambda kind: kind(12, 40, 1),
    "doubling": lambda kind: kind(12, 40, 4, stride=2, padding=1),
}


def run(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("case", LAYERS)
def test_products_are_convolutions(case, rows, monkeypatch):
    own, torchs = (
        (Convolution, nn.Conv1d) if case != "doubling" else (TransposedConvolution, nn.ConvTranspose1d)
    )
    torch.manual_seed(0)
    ours, theirs = LAYERS[case](own), LAYERS[case](torchs)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    monkeypatch.setattr(convolution, "MANY_WEIGHTS", 0)  # products, whatever the size
    x = torch.randn(rows, 12, 8)
    for a, b in zip(run(ours, x), run(theirs, x)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def products(layer, x, monkeypatch):
    """Whether a forward pass takes the product."""
    asked = []
    monkeypatch.setattr(convolution, "_pays", lambda *given: asked.append(pays(*given)) or asked[-1])
    layer(x)
    return asked == [True]


pays = convolution._pays


def test_products_only_in_float32_training_of_few_positions(monkeypatch):
    layer, few, many = Convolution(8, 64, 5, padding=2), torch.zeros(2, 8, 8), torch.zeros(16, 8, 8)
    assert products(layer, few, monkeypatch) and not products(layer, many, monkeypatch)
    with torch.no_grad():
        assert not products(layer, few, monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        assert not products(layer, few, monkeypatch)
    assert not products(layer.eval(), few, monkeypatch)

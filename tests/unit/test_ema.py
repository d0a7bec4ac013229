"""The average follows the formula, copies counters, and owns its memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robopolicy.training.ema import Ema


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("count", torch.tensor(0))


@pytest.mark.parametrize(("power", "max_decay"), [(0.75, 0.9999), (2 / 3, 0.9), (1.0, 0.5)])
def test_the_average_is_the_warmed_up_recurrence(power, max_decay):
    module = Counted()
    ema, expected = Ema(module, power=power, max_decay=max_decay), torch.zeros(3)
    for step in range(1, 40):
        with torch.no_grad():
            module.weight.copy_(torch.tensor([1.0, step, step**0.5]))
        module.count += 1
        ema.update()
        decay = min(max_decay, 1 - (1 + step) ** -power)
        expected = decay * expected + (1 - decay) * module.weight.detach()
        torch.testing.assert_close(ema.weights["weight"], expected)
    assert ema.weights["count"] == 39


def test_the_average_shares_no_memory_with_the_module():
    module = Counted()
    ema = Ema(module)
    with torch.no_grad():
        module.weight.fill_(7.0)
    assert (ema.weights["weight"] == 0).all()
    ema.update()
    assert (module.weight == 7).all()


class Tied(nn.Module):
    """Two names for one tensor, a buffer that is replaced rather than written to, one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first
        self.register_buffer("bias", torch.zeros(2))
        self.register_buffer("table", torch.ones(2), persistent=False)


def test_a_buffer_that_is_replaced_is_followed():
    module = Tied()
    ema = Ema(module)
    assert ema.weights.keys() == module.state_dict().keys()
    module.bias = torch.ones(2)
    ema.update()
    assert (ema.weights["bias"] > 0).all()


def test_within_it_the_module_has_the_averages_and_afterwards_its_own_weights():
    module = Tied()
    ema = Ema(module)
    averages = {name: value.clone() for name, value in ema.weights.items()}
    with torch.no_grad():
        module.first.weight.fill_(7.0)
    with pytest.raises(RuntimeError), ema.in_place():
        assert torch.equal(module.first.weight, averages["first.weight"])
        raise RuntimeError("while it computed")
    assert (module.first.weight == 7).all()
    assert all(torch.equal(ema.weights[name], value) for name, value in averages.items())
    ema.update()
    assert (ema.weights["first.weight"] != averages["first.weight"]).all()


def test_it_goes_on_from_its_state():
    one, two = Tied(), Tied()
    first, second = Ema(one), Ema(two)
    first.update()
    second.restore(first.state())
    two.load_state_dict(one.state_dict())
    first.update(), second.update()
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    with pytest.raises(ValueError, match="averages of other weights"):
        second.restore(Ema(Counted()).state())


def test_the_averages_can_be_loaded_back_strictly():
    module = Counted()
    module.load_state_dict(Ema(module).weights, strict=True)

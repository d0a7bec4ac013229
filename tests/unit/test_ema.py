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
        ema.update(module)
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
    ema.update(module)
    assert (module.weight == 7).all()


def test_the_averages_can_be_loaded_back_strictly():
    module = Counted()
    module.load_state_dict(Ema(module).weights, strict=True)

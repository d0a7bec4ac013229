"""Groups get their rates, frozen parts stay bit-equal, gradients are clipped as torch clips them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from robopolicy.core.errors import ConfigError
from robopolicy.training.ema import Ema
from robopolicy.training.optimiser import (
    OptimiserConfig,
    build_optimiser,
    clip_gradients,
    freeze,
    rate_factor,
    trainable_parameters,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.ModuleDict({"vision": nn.Linear(3, 4), "words": nn.Linear(3, 4)})
        self.head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder["vision"](x) + self.encoder["words"](x))


def train(net: Net, config: OptimiserConfig, steps: int = 3) -> Ema:
    optimiser, schedule = build_optimiser(net, config, steps)
    ema = Ema(net)
    for seed in range(steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        net(x).square().sum().backward()
        optimiser.step()
        schedule.step()
        ema.update()
    return ema


def test_the_defaults_are_one_group_of_everything():
    optimiser, _ = build_optimiser(Net(), OptimiserConfig(), 100)
    (group,) = optimiser.param_groups
    assert group["initial_lr"] == 5e-4 and group["weight_decay"] == 1e-6 and group["betas"] == (0.9, 0.999)
    assert sum(p.numel() for p in group["params"]) == trainable_parameters(Net())[1]


def test_the_encoder_has_its_own_rate_and_vectors_are_spared_decay():
    net = Net()
    config = OptimiserConfig(learning_rate=1e-2, weight_decay=0.5, decay_all=False, encoder_rate=0.1)
    optimiser, _ = build_optimiser(net, config, 10)
    found = {
        id(parameter): (group["initial_lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    for name, parameter in net.named_parameters():
        rate = 1e-3 if name.startswith("encoder.") else 1e-2
        assert found[id(parameter)] == (pytest.approx(rate), 0.5 if parameter.ndim > 1 else 0.0), name


@pytest.mark.parametrize("prefix", ["encoder.vision", "encoder", "head.1", "head.0.bias", "head."])
def test_frozen_parts_and_their_average_stay_bit_equal_and_all_else_moves(prefix):
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ema = train(net, OptimiserConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.1, frozen=(prefix,)))
    for name, value in net.state_dict().items():
        kept = (name + ".").startswith(prefix.rstrip(".") + ".")
        assert torch.equal(value, before[name]) == kept, name
        assert torch.equal(ema.weights[name], before[name]) == kept, name


def test_names_that_freeze_nothing_or_everything_are_refused():
    with pytest.raises(ConfigError, match=r"'encoder.ears'; there are .*'encoder.vision'"):
        build_optimiser(Net(), OptimiserConfig(frozen=("encoder.ears",)), 10)
    with pytest.raises(ConfigError, match="'enc'"):  # whole parts of a name only
        freeze(Net(), ("enc",))
    with pytest.raises(ConfigError, match="nothing is left to train"):
        build_optimiser(Net(), OptimiserConfig(frozen=("encoder", "head")), 10)


def test_trainable_parameters_are_counted():
    net = Net()
    freeze(net, ("encoder",))
    assert trainable_parameters(net) == (20 + 8 + 10, 32 + 20 + 8 + 10)


@pytest.mark.parametrize("limit", [0.0, 1e-3, 0.5, 1e6])
def test_clipping_is_torchs(limit):
    ours, theirs = Net(), Net()
    for net in (ours, theirs):
        net(torch.ones(5, 3)).square().sum().backward()
    norm = clip_gradients(list(ours.parameters()), limit)
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), limit or float("inf"))
    assert norm == expected > 0.5
    for a, b in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_rates_warm_up_and_then_fall_as_the_schedule_says(schedule):
    config = OptimiserConfig(warmup_steps=10, schedule=schedule)
    factors = [rate_factor(step, steps=100, config=config) for step in range(101)]
    assert all(a < b for a, b in pairwise(factors[:9]))
    if schedule == "constant":
        assert factors[9:] == [1.0] * 92
    else:
        assert all(a > b for a, b in pairwise(factors[10:]))
        assert factors[-1] == pytest.approx(0, abs=1e-12)
        assert factors[50] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"schedule": "steps"}, r"'steps' is not one of \('cosine'"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"encoder_rate": -1.0}, "encoder_rate"),
        ({"gradient_clip": float("nan")}, "gradient_clip"),
    ],
)
def test_impossible_options_are_refused_by_field(change, message):
    with pytest.raises(ConfigError, match=message):
        OptimiserConfig(**change)

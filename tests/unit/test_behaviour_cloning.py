"""Behaviour cloning: both losses, what it does where demonstrations disagree, its refusals."""

from __future__ import annotations

import pytest
import torch
from synthetic import make_policy_specs

from robopolicy.core.errors import ConfigError
from robopolicy.policies.behaviour_cloning import BehaviourCloning, Config, build

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (8, 3)


def make(**options) -> BehaviourCloning:
    torch.manual_seed(0)
    return build(Config(**{"width": 32, "blocks": 1, **options}), make_policy_specs())


def fitted(module: BehaviourCloning, action: torch.Tensor) -> torch.Tensor:
    """The chunk for one observation after training on these chunks from it."""
    conditioning = torch.zeros(len(action), module.encoder.dim)
    mask = torch.ones(action.shape[:2], dtype=torch.bool)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 200)
    for _ in range(200):
        optimiser.zero_grad()
        module.loss(conditioning, action, mask, torch.Generator()).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return module.sample(module.prepare(conditioning[:1]), torch.zeros(1, 0))


@pytest.mark.parametrize(("regression", "expected"), [("mse", -0.2), ("l1", -0.5)])
def test_where_demonstrations_disagree_it_gives_their_mean_or_their_median(regression, expected):
    """Seven of ten chunks say -0.5, three say +0.5."""
    sign = torch.where(torch.arange(10) < 7, -0.5, 0.5)
    chunk = fitted(make(regression=regression), sign[:, None, None].expand(10, *SHAPE))
    torch.testing.assert_close(chunk, torch.full((1, *SHAPE), expected), atol=0.03, rtol=0)


@pytest.mark.parametrize("regression", ["mse", "l1"])
def test_padding_can_be_left_out_of_the_loss(regression):
    module = make(regression=regression, loss_on_padding=False)
    conditioning, action = torch.randn(2, module.encoder.dim), torch.zeros(2, *SHAPE)
    mask = torch.ones(2, SHAPE[0], dtype=torch.bool)
    mask[:, 5:] = False
    before = module.loss(conditioning, action, mask, torch.Generator())
    action[:, 5:] = 9.0
    assert torch.equal(module.loss(conditioning, action, mask, torch.Generator()), before)


def test_it_never_asks_for_more_than_the_data_held():
    module = make()
    with torch.no_grad():
        module.network.leave[-1].bias.fill_(5.0)
        assert (module.prepare(torch.zeros(1, module.encoder.dim)) == 1).all()


def test_options_out_of_range_are_named():
    with pytest.raises(ConfigError, match="regression 'huber' is not one of"):
        Config(regression="huber")
    with pytest.raises(ConfigError, match="blocks"):
        make(blocks=0)

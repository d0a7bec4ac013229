"""MoDE: routes follow the noise level alone, balance is kept, and the cached form is the same function."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_windows

from robopolicy.core.errors import ConfigError, NonFiniteValueError
from robopolicy.datasets.loader import TensorBatch
from robopolicy.models.edm import EdmConfig
from robopolicy.models.mode_inference import CachedExperts
from robopolicy.models.routing import NoiseRouter
from robopolicy.policies.mode import Config, MixtureOfDenoisingExperts, build
from robopolicy.training.config import TrainConfig
from robopolicy.training.distributed import Processes
from robopolicy.training.update import Update

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = Config(dim=16, layers=2, heads=2, expert_hidden=8, schedule=EdmConfig(denoising_steps=6))


def make(config: Config = TINY, seed: int = 0) -> MixtureOfDenoisingExperts:
    torch.manual_seed(seed)
    module = build(config, make_policy_specs())
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        token = module.denoiser.noise_token(module.steps[:, 9])
        for block in module.denoiser.blocks:  # routes that differ from step to step
            *_, last = block.router.network
            last.weight.mul_(3)
            last.bias.sub_(block.router.network(token).mean(0))
    return module


def batch(module: MixtureOfDenoisingExperts, rows: int = 16):
    generator = torch.Generator().manual_seed(rows)
    action = torch.rand(rows, *module.policy_specs.chunk_shape, generator=generator) - 0.5
    conditioning = torch.randn(rows, 2, module.config.dim, generator=generator)
    return conditioning, action, torch.ones(action.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("balancing", ["loss", "bias"])
def test_cached_is_uncached(rows, k, balancing):
    module = make(dataclasses.replace(TINY, active_experts=k, balancing=balancing)).eval()
    if balancing == "bias":
        for i, block in enumerate(module.denoiser.blocks):
            block.router.bias.copy_(0.2 * torch.randn(4, generator=torch.Generator().manual_seed(i)))
    form = module.inference_form().eval()
    generator = torch.Generator().manual_seed(0)
    shape = (rows, *module.policy_specs.chunk_shape)
    conditioning, noise = (
        torch.randn(rows, 2, 16, generator=generator),
        torch.randn(shape, generator=generator),
    )
    prefix, weight = torch.rand(shape, generator=generator), torch.rand(shape[:2], generator=generator)
    with torch.inference_mode():
        for given in ((conditioning, noise), (conditioning, noise, prefix, weight)):
            torch.testing.assert_close(form.sample(*given), module.sample(*given), rtol=0, atol=1e-5)


def test_the_cache_has_no_router_and_each_set_of_experts_once():
    module = make().eval()
    form = module.inference_form()
    assert not any(isinstance(part, NoiseRouter) for part in form.modules())
    with torch.no_grad():
        routes = module.denoiser.routes(module.denoiser.noise_token(module.steps[:, 9]))
    for fused, route in zip((m for m in form.modules() if isinstance(m, CachedExperts)), routes):
        distinct = {tuple(sorted(pair)) for pair in route.index.tolist()}
        assert len(distinct) > 1
        assert len(fused.gate) == len(fused.outward) == len(distinct)
        assert fused.gate.shape[1:] == (16, 2 * 8) and fused.outward.shape[1:] == (2 * 8, 16)


def test_one_expert_needs_neither_choice_nor_weights():
    fused = make(dataclasses.replace(TINY, experts=1, active_experts=1)).inference_form().denoiser.blocks[0]
    assert len(fused.experts.gate) == 1 and fused.experts.weight is None


def test_routes_follow_the_noise_level_alone():
    module = make().eval()
    with torch.no_grad():
        token = module.denoiser.noise_token(torch.tensor([0.01, 0.01, 5.0]))
        route = module.denoiser.routes(token)[0]
    assert torch.equal(route.index[0], route.index[1]) and torch.equal(route.weight[0], route.weight[1])
    assert not torch.equal(route.probabilities[0], route.probabilities[2])
    torch.testing.assert_close(route.weight.sum(1), torch.ones(3))


def test_training_draws_experts_by_their_probability_from_the_generator():
    module = make()
    router, token = module.denoiser.blocks[0].router, torch.randn(1, 16).expand(4000, -1)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    route = router(token, torch.Generator().manual_seed(0))
    again = router(token, torch.Generator().manual_seed(0))
    assert torch.equal(route.index, again.index) and torch.equal(torch.random.get_rng_state(), state)
    assert (route.index[:, 0] != route.index[:, 1]).all()
    share = torch.bincount(route.index[:, 0], minlength=4) / 4000
    torch.testing.assert_close(share, route.probabilities[0].detach(), rtol=0, atol=0.03)


def test_losses_repeat_and_do_not_touch_the_global_generator():
    module = make()
    given = batch(module)
    state = torch.random.get_rng_state()
    losses = {module.loss(*given, torch.Generator().manual_seed(3)).item() for _ in range(2)}
    assert len(losses) == 1 and torch.equal(torch.random.get_rng_state(), state)


def trained_usage(balancing: str, steps: int = 150) -> torch.Tensor:
    """Usage of the experts over the last steps, from a start at which one expert takes everything."""
    config = dataclasses.replace(
        TINY, balancing=balancing, balance_weight=1.0, bias_rate=0.02, active_experts=1, layers=1
    )
    module = make(config)
    with torch.no_grad():
        module.denoiser.blocks[0].router.network[-1].weight.mul_(0.1)
        module.denoiser.blocks[0].router.network[-1].bias[0] += 3
    parameters = [p for n, p in module.named_parameters() if "router.network" in n]
    optimiser = torch.optim.Adam(parameters, 3e-2 if balancing == "loss" else 0.0)
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(steps):
        loss = module.loss(*batch(module, 64), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        module.after_step()
        metrics = module.metrics()
        found.append([metrics[f"usage.layer0.expert{i}"] for i in range(4)])
    return torch.tensor(found[-30:]).mean(0)


@pytest.mark.parametrize("balancing", ["loss", "bias"])
def test_both_ways_of_balancing_undo_a_collapse(balancing):
    assert trained_usage(balancing, steps=1).max() > 0.7
    assert trained_usage(balancing).max() < 0.5


def biased() -> MixtureOfDenoisingExperts:
    return make(dataclasses.replace(TINY, balancing="bias", bias_rate=0.01))


def test_the_bias_moves_after_a_step_of_training_and_only_then():
    module = biased()
    bias = module.denoiser.blocks[0].router.bias
    module.eval().loss(*batch(module), torch.Generator().manual_seed(0))
    module.after_step()
    assert (bias == 0).all()
    module.train().loss(*batch(module), torch.Generator().manual_seed(0))
    assert (bias == 0).all()
    module.after_step()
    moved = bias.clone()
    assert (moved != 0).any()
    module.after_step()  # nothing new to go by
    assert torch.equal(bias, moved)


def updated(accumulate: int, *, spoilt: bool = False) -> tuple[MixtureOfDenoisingExperts, dict]:
    """After a step of training, and, where ``spoilt``, another that is refused; the state before that."""
    module = biased().train()
    config = TrainConfig(steps=10, batch_size=12, accumulate=accumulate, device="cpu", warmup_steps=0)
    update = Update(module, config, Processes())
    specs, (_, action, mask) = module.policy_specs, batch(module, 12)
    seen = make_normalisers(specs).observations(specs.specs, make_windows(specs, 12))
    observation = {key: torch.from_numpy(value) for key, value in seen.items()}
    given = TensorBatch(observation=observation, action=action, mask=mask, instruction=None)
    update(given)
    before = copy.deepcopy(module.state_dict())
    if spoilt:
        given.action[:] = torch.nan
        with pytest.raises(NonFiniteValueError):
            update(given)
    return module, before


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_in_parts_moves_the_bias_once(parts):
    module, _ = updated(parts)
    for block in module.denoiser.blocks:
        assert block.router.bias.abs().max() == pytest.approx(0.01)


def test_a_refused_step_leaves_weights_and_bias_as_they_were():
    module, before = updated(1, spoilt=True)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_noise_tokens_without_numbers_route_somewhere():
    """Losses are looked at later than they are computed where looking would make a GPU wait."""
    router = make().denoiser.blocks[0].router
    route = router(torch.full((5, 16), torch.nan), torch.Generator().manual_seed(0))
    assert ((route.index >= 0) & (route.index < 4)).all() and route.weight.isnan().all()


def test_metrics_tell_usage_and_balance():
    module = make()
    loss = module.loss(*batch(module), torch.Generator().manual_seed(0))
    found = module.metrics()
    assert found["denoising"] + 0.01 * found["balance"] == pytest.approx(loss.item(), rel=1e-5)
    for layer in range(2):
        assert sum(found[f"usage.layer{layer}.expert{i}"] for i in range(4)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("balancing", "none"), ("active_experts", 5), ("dim", 15), ("dim", 2), ("heads", 3), ("layers", 0),
        ("balance_weight", -1.0), ("balance_weight", math.inf), ("bias_rate", math.nan), ("expert_hidden", 0),
    ],
)  # fmt: skip
def test_bad_options_are_named(field, value):
    with pytest.raises(ConfigError, match=field):
        Config(**{field: value})

"""The mixture head: its density, seeded picking, the router's loss, dead experts, export with noise."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from synthetic import make_policy_specs

from robopolicy.core.errors import ConfigError
from robopolicy.export.onnx import export_graphs
from robopolicy.models.mixture_head import Mixture, pick
from robopolicy.policies.gmm import Config, Gmm, build

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"width": 32, "blocks": 1, "components": 3}
SHAPE = (8, 3)


def make(**options) -> Gmm:
    torch.manual_seed(0)
    return build(Config(**{**TINY, **options}), make_policy_specs()).eval()


def prepared(module: Gmm, rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return module.prepare(torch.randn(rows, module.encoder.dim, generator=generator))


def random_mixture(rows: int = 5, components: int = 3) -> Mixture:
    generator = torch.Generator().manual_seed(1)
    shape = (rows, components, *SHAPE)
    return Mixture(
        torch.randn(rows, components, generator=generator),
        torch.randn(shape, generator=generator),
        0.2 + torch.rand(shape, generator=generator),
    )


def test_the_density_is_that_of_torch_distributions():
    mixture = random_mixture()
    chunk = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(2))
    found = mixture.log_densities(chunk, torch.ones(5, SHAPE[0]))
    gaussian = torch.distributions.Normal(mixture.mean, mixture.std)
    torch.testing.assert_close(found, gaussian.log_prob(chunk[:, None]).sum((-1, -2)))


def test_the_loss_is_the_negative_log_likelihood_of_a_number():
    module = make()
    conditioning, action = torch.randn(6, module.encoder.dim), torch.rand(6, *SHAPE) * 2 - 1
    mask = torch.ones(6, SHAPE[0], dtype=torch.bool)
    mixture = module.mixture(conditioning)
    gaussian = torch.distributions.Independent(torch.distributions.Normal(mixture.mean, mixture.std), 2)
    whole = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mixture.logits), gaussian
    )
    expected = -whole.log_prob(action).mean() / (SHAPE[0] * SHAPE[1])
    torch.testing.assert_close(module.loss(conditioning, action, mask, torch.Generator()), expected)


def test_padding_can_be_left_out_of_the_loss():
    module = make(loss_on_padding=False)
    conditioning, action = torch.randn(2, module.encoder.dim), torch.zeros(2, *SHAPE)
    mask = torch.ones(2, SHAPE[0], dtype=torch.bool)
    mask[:, 5:] = False
    before = module.loss(conditioning, action, mask, torch.Generator())
    action[:, 5:] = 9.0
    assert torch.equal(module.loss(conditioning, action, mask, torch.Generator()), before)
    action[:, 4] = 9.0
    assert module.loss(conditioning, action, mask, torch.Generator()) > before


def test_components_are_picked_as_often_as_their_weights_say():
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3])
    normal = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    chosen = pick(weights.expand(40_000, -1), normal)
    assert torch.equal(chosen.sum(-1), torch.ones(40_000))
    torch.testing.assert_close(chosen.mean(0), weights, atol=0.01, rtol=0)


def test_even_the_most_extreme_noise_picks_one_component():
    chosen = pick(torch.full((2, 3), 1 / 3), torch.tensor([-40.0, 40.0]))
    assert chosen.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_without_noise_on_top_a_chunk_is_an_experts_mean():
    module = make()
    conditioning = prepared(module, 1)
    noise = torch.randn(64, *module.policy_specs.noise_shape, generator=torch.Generator().manual_seed(0))
    chunks = module.sample(conditioning.expand(64, -1), noise)
    means = conditioning[:, 3:].unflatten(-1, (2, 3, *SHAPE))[0, 0].clamp(-1, 1)
    nearest = (chunks[:, None] - means).abs().amax((-1, -2))
    assert (nearest.min(-1).values == 0).all()
    assert len(nearest.argmin(-1).unique()) == 3


def test_the_likeliest_expert_needs_no_noise():
    module = make(choice="likeliest")
    conditioning = prepared(module, 4)
    noise = torch.randn(2, 4, *module.policy_specs.noise_shape, generator=torch.Generator().manual_seed(0))
    first, second = (module.sample(conditioning, part) for part in noise)
    assert torch.equal(first, second)


def test_the_deviation_scales_the_noise():
    narrow, wide = make(std_scale=0.01), make(std_scale=0.1)
    noise = torch.randn(4, *narrow.policy_specs.noise_shape, generator=torch.Generator().manual_seed(0))
    centre = make().sample(prepared(make(), 4), noise)
    near, far = (module.sample(prepared(module, 4), noise) for module in (narrow, wide))
    free = far.abs() < 1  # elsewhere the chunk was held within the range of the data
    assert free.sum() > 50
    torch.testing.assert_close(10 * (near - centre)[free], (far - centre)[free], atol=1e-4, rtol=1e-3)
    assert (far - centre).abs().max() > 0.05


def test_the_frequency_loss_pulls_the_router_to_the_winner():
    """One expert explains every chunk, and the router starts elsewhere."""
    mask = torch.ones(1, SHAPE[0], dtype=torch.bool)
    conditioning = torch.zeros(1, make().encoder.dim)
    for weight in (0.0, 1.0):
        module = make(router_weight=weight)
        mixture = module.mixture(conditioning)
        action = mixture.mean[:, 2].detach()
        winner = int(mixture.log_densities(action, mask.float()).argmax())
        loss = module.loss(conditioning, action, mask, torch.Generator())
        parts = module.metrics()
        expected = parts["negative_log_likelihood"] + weight * parts["frequency_loss"]
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        one_hot = torch.eye(3)[winner]
        share = mixture.logits.softmax(-1)[0]
        assert parts["frequency_loss"] == pytest.approx((share - one_hot).square().sum().item(), rel=1e-5)


def test_metrics_tell_dead_experts():
    module = make(components=4)
    with torch.no_grad():  # weights far apart: experts 1 and 3 are never chosen, and explain nothing
        module.network.leave[-1].weight[:4] = 0
        module.network.leave[-1].bias[:4] = torch.tensor([0.0, -80.0, 0.0, -80.0])
        module.network.leave[-1].weight[4:] = 0
        module.network.leave[-1].bias[4:] = 0
    assert module.metrics() == {}
    action, mask = torch.zeros(8, *SHAPE), torch.ones(8, SHAPE[0], dtype=torch.bool)
    module.loss(torch.zeros(8, module.encoder.dim), action, mask, torch.Generator())
    found = module.metrics()
    assert found["dead_experts"] == 2
    assert found["usage.expert0"] == pytest.approx(0.5) and found["usage.expert1"] == pytest.approx(0)


def test_two_ways_are_kept_apart():
    """Half the chunks are +0.5, half -0.5, from one observation: experts share them out evenly."""
    module = make(components=2).train()
    conditioning = torch.zeros(64, module.encoder.dim)
    sign = torch.where(torch.arange(64) % 2 == 0, 0.5, -0.5)
    action, mask = sign[:, None, None].expand(64, *SHAPE), torch.ones(64, SHAPE[0], dtype=torch.bool)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        module.loss(conditioning, action, mask, torch.Generator()).backward()
        optimiser.step()
    with torch.no_grad():
        noise = torch.randn(400, *module.policy_specs.noise_shape, generator=torch.Generator().manual_seed(0))
        chunks = module.sample(module.prepare(conditioning[:1]).expand(400, -1), noise)
    assert ((chunks.abs() - 0.5).abs() < 0.1).all()
    up = int((chunks[:, 0, 0] > 0).sum())
    assert 140 < up < 260


def test_exported_with_noise_on_top_it_gives_the_same_chunks():
    module = make(std_scale=0.7)
    graphs = export_graphs(module)
    conditioning = prepared(module, 50)
    noise = torch.randn(50, *module.policy_specs.noise_shape, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(graphs["sampler"])
    (found,) = session.run(None, {"conditioning": conditioning.numpy(), "noise": noise.numpy()})
    np.testing.assert_allclose(found, module.sample(conditioning, noise).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [("choice", "best"), ("components", 0), ("min_std", 0.0), ("router_weight", -1.0), ("std_scale", -0.1)],
)
def test_options_out_of_range_are_named(option, value):
    with pytest.raises(ConfigError, match=option):
        Config(**{option: value})

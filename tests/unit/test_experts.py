"""Stacked experts against a slow, obvious loop; balance and usage against hand-counted numbers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from robopolicy.core.errors import ConfigError
from robopolicy.models.experts import Experts, balance_loss, expert_usage

ROWS, TOKENS, DIM, HIDDEN, EXPERTS = 7, 3, 6, 5, 4
pytestmark = pytest.mark.usefixtures("one_thread")


def slow(experts: Experts, x: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Token by token, expert by expert."""
    result = torch.zeros_like(x)
    for row in range(len(x)):
        for expert, share in zip(index[row].tolist(), weight[row]):
            for token in range(x.shape[1]):
                inner = experts.inward[expert] @ x[row, token]
                if experts.activation == "swiglu":
                    inner = functional.silu(inner[: experts.hidden]) * inner[experts.hidden :]
                else:
                    inner = functional.gelu(inner)
                result[row, token] += share * (experts.outward[expert] @ inner)
    return result


def make(activation: str = "swiglu", k: int = 2):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    experts = Experts(EXPERTS, DIM, HIDDEN, activation=activation)
    x = torch.randn(ROWS, TOKENS, DIM, generator=generator)
    index = torch.rand(ROWS, EXPERTS, generator=generator).topk(k).indices
    weight = torch.rand(ROWS, k, generator=generator).softmax(1)
    return experts, x, index, weight


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_rows_go_to_their_experts_in_values_and_gradients(activation, k):
    experts, x, index, weight = make(activation, k)
    x.requires_grad_(), weight.requires_grad_()
    inputs = [x, weight, experts.inward, experts.outward]
    found, expected = experts(x, index, weight), slow(experts, x, index, weight)
    torch.testing.assert_close(found, expected)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad((found * direction).sum(), inputs)
    wanted = torch.autograd.grad((expected * direction).sum(), inputs)
    torch.testing.assert_close(got, wanted)


def test_experts_that_nobody_chose_are_skipped_and_get_no_gradient():
    experts, x, _, weight = make()
    index = torch.tensor([[2, 0]]).expand(ROWS, 2)
    experts(x, index, weight).sum().backward()
    assert (experts.inward.grad[[1, 3]] == 0).all() and (experts.inward.grad[[0, 2]] != 0).any()


def test_one_route_for_all_rows():
    experts, x, index, weight = make()
    one = experts(x, index[:1], weight[:1])
    torch.testing.assert_close(one, slow(experts, x, index[:1].expand(ROWS, 2), weight[:1].expand(ROWS, 2)))


@pytest.mark.parametrize("routes", [1, ROWS])
def test_only_chosen_experts_are_computed(routes):
    experts, x, index, weight = make()
    with FlopCounterMode(display=False) as counter:
        experts(x, index[:routes], weight[:routes])
    assert counter.get_total_flops() == 2 * ROWS * TOKENS * 2 * (DIM * 2 * HIDDEN + HIDDEN * DIM)


@pytest.mark.parametrize("routes", [1, ROWS])
def test_exported_the_values_stay(routes):
    experts, x, index, weight = make()
    index, weight = index[:routes], weight[:routes]
    program = torch.export.export(experts, (x, index, weight), strict=False)
    torch.testing.assert_close(program.module()(x, index, weight), experts(x, index, weight))


def test_usage_and_balance():
    index = torch.tensor([[0, 1], [0, 2]])
    assert expert_usage(index, 4).tolist() == [0.5, 0.25, 0.25, 0.0]
    probabilities = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]])
    assert balance_loss(probabilities, expert_usage(index, 4)).item() == pytest.approx(
        4 * (0.5 * 0.6 + 0.25 * 0.2 + 0.25 * 0.1)
    )
    even = torch.full((6, 4), 0.25)
    pairs = torch.combinations(torch.arange(4))
    assert balance_loss(even, expert_usage(pairs, 4)).item() == pytest.approx(1)
    collapsed = torch.tensor([[1.0, 0, 0, 0]])
    assert balance_loss(collapsed, expert_usage(torch.tensor([[0]]), 4)).item() == pytest.approx(4)


def test_bad_options_are_named():
    with pytest.raises(ConfigError, match="relu"):
        Experts(4, 8, 8, activation="relu")
    with pytest.raises(ConfigError, match="hidden"):
        Experts(4, 8, 0)

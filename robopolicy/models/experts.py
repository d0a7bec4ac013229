"""Feed-forward experts with stacked weights, of which each row of a batch goes to k, and their balance.

Which experts a row goes to is the caller's affair: MoDE routes by noise level, SDP by task.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from robopolicy.core.errors import ConfigError

ACTIVATIONS = ("swiglu", "gelu")


class Experts(nn.Module):
    """y = sum over a row's k experts of weight * expert(x), for all tokens of the row alike.

    Only chosen experts are computed. Weights are stacked: ``inward`` (num_experts, width, dim), where
    width is 2 * hidden with "swiglu" (gate rows first), and ``outward`` (num_experts, dim, hidden).

    Args:
        hidden: units of each expert.
        activation: "swiglu" (Shazeer 2020) or "gelu"; neither has biases.
    Raises:
        ConfigError: an unknown activation, or a size below one.
    """

    def __init__(self, num_experts: int, dim: int, hidden: int, *, activation: str = "swiglu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation {activation!r} is not one of {ACTIVATIONS}")
        if min(num_experts, dim, hidden) < 1:
            raise ConfigError(f"num_experts, dim and hidden must be >= 1, got {num_experts}, {dim}, {hidden}")
        self.activation = activation
        self.num_experts, self.dim, self.hidden = num_experts, dim, hidden
        width = 2 * hidden if activation == "swiglu" else hidden
        self.inward = nn.Parameter(_uniform(num_experts, width, dim))
        self.outward = nn.Parameter(_uniform(num_experts, dim, hidden))

    def forward(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """(rows, tokens, dim) -> (rows, tokens, dim).

        Args:
            index: (rows, k) int64 experts of each row; (1, k) sends every row the same way.
            weight: (rows, k) or (1, k), of the experts' outputs.
        """
        if len(index) == 1:
            return self._same_for_all(x, index[0], weight[0])
        if torch.compiler.is_exporting():
            return self._all_experts(x, index, weight)
        return self._grouped(x, index, weight)

    def hidden_units(self, x: Tensor, inward: Tensor) -> Tensor:
        """(..., dim) -> (..., hidden) of one expert's (width, dim) weights, or of several stacked by rows."""
        return activate(functional.linear(x, inward), self.activation)

    def _grouped(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """Rows sorted by expert: one product per expert, however the rows are mixed."""
        k = index.shape[1]
        chosen = index.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=self.num_experts).tolist()
        each = zip(x.index_select(0, order // k).split(counts), self.inward.unbind(), self.outward.unbind())
        parts = [
            functional.linear(self.hidden_units(part, inward), outward)
            for part, inward, outward in each
            if len(part)
        ]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        found = torch.cat(parts).index_select(0, back).unflatten(0, (-1, k))
        return (found * weight[:, :, None, None]).sum(1).to(x.dtype)

    def _same_for_all(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """One route: the experts' weights are taken as views, or gathered where a graph is traced."""
        chosen = index if torch.compiler.is_exporting() else index.tolist()
        total = torch.zeros_like(x)
        for i in range(len(index)):
            inward, outward = self.inward[chosen[i]], self.outward[chosen[i]]
            total = total + weight[i] * functional.linear(self.hidden_units(x, inward), outward)
        return total

    def _all_experts(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """Every expert on every row, most with weight 0: inference engines need constant factors."""
        full = weight.new_zeros(len(index), self.num_experts).scatter(1, index, weight)
        total = torch.zeros_like(x)
        for expert in range(self.num_experts):
            found = functional.linear(self.hidden_units(x, self.inward[expert]), self.outward[expert])
            total = total + full[:, expert, None, None] * found
        return total


def activate(x: Tensor, activation: str) -> Tensor:
    """(..., 2 * hidden) -> (..., hidden) for "swiglu", gate first; elementwise for "gelu"."""
    if activation == "gelu":
        return functional.gelu(x)
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


def expert_usage(index: Tensor, num_experts: int) -> Tensor:
    """(num_experts,) share of the choices in (rows, k) that fell on each expert; sums to 1."""
    return torch.bincount(index.flatten(), minlength=num_experts) / index.numel()


def name_usage(usage: Tensor) -> dict[str, float]:
    """Each expert's share (layers, experts) under the name that it is logged by, "usage.layer0.expert1"."""
    return {
        f"usage.layer{layer}.expert{expert}": share
        for layer, shares in enumerate(usage.tolist())
        for expert, share in enumerate(shares)
    }


def mean_over_processes(usage: Tensor) -> Tensor:
    """Of the processes that train together, all of which must call this; itself where there is one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return usage
    total = usage.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def balance_loss(probabilities: Tensor, usage: Tensor) -> Tensor:
    """N * sum_i f_i * mean p_i, scalar: 1 when experts are used alike, N when one takes everything.

    Args:
        probabilities: (rows, num_experts) of the router; the gradient goes through these.
        usage: (num_experts,) f, the ``expert_usage``. That of all rows makes the mean of the losses of some
            rows each the loss of all.
    Source: Switch Transformer (Fedus et al. 2021), eq. 4, with f counted over k choices.
    """
    return probabilities.shape[-1] * (usage * probabilities.mean(0)).sum()


def _uniform(count: int, width: int, dim: int) -> Tensor:
    """As ``nn.Linear`` starts, for each expert."""
    return torch.empty(count, width, dim).uniform_(-1 / math.sqrt(dim), 1 / math.sqrt(dim))

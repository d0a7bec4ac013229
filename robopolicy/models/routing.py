"""Which experts a noise level goes to: MoDE's router, in training and at inference."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Route(NamedTuple):
    """Where rows go.

    Args:
        index: (rows, k) int64 experts.
        weight: (rows, k) of their outputs, summing to 1.
        probabilities: (rows, num_experts), from which they came.
    """

    index: Tensor
    weight: Tensor
    probabilities: Tensor


class NoiseRouter(nn.Module):
    """A small network on the noise token alone.

    Args:
        dim: features of the noise token.
        k: experts of each row.
        bias: choose by probability + bias, where the bias is moved by ``update_bias`` and by no gradient.
    Source: MoDE (Reuss et al. 2024), sec. 3.2; the bias is Wang et al. 2024, "Auxiliary-loss-free load
        balancing strategy for mixture-of-experts".
    """

    bias: Tensor | None

    def __init__(self, dim: int, num_experts: int, k: int, *, bias: bool) -> None:
        super().__init__()
        self.k, self.num_experts = k, num_experts
        self.network = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, num_experts))
        self.register_buffer("bias", torch.zeros(num_experts) if bias else None)

    def forward(self, noise_token: Tensor, generator: torch.Generator | None = None) -> Route:
        """Routes of noise tokens (rows, dim).

        Without a bias a generator draws experts without replacement, in proportion to their probabilities, so
        that none starves (the best by log probability and Gumbel noise: the same draw as multinomial's, but
        NaNs, which are told of later, do no harm); without one the most probable are taken. With a bias they
        always are.
        """
        probabilities = self.network(noise_token).float().softmax(-1)
        if self.bias is not None:
            index = (probabilities + self.bias).topk(self.k).indices
        elif generator is not None and self.k < self.num_experts:
            uniform = torch.rand(probabilities.shape, generator=generator, device=probabilities.device)
            gumbel = -(-uniform.clamp(1e-9, 1 - 1e-7).log()).log()
            index = (probabilities.detach().log() + gumbel).topk(self.k).indices
        else:
            index = probabilities.topk(self.k).indices
        chosen = probabilities.gather(1, index)
        return Route(index, chosen / chosen.sum(1, keepdim=True), probabilities)

    @torch.no_grad()
    def update_bias(self, usage: Tensor, rate: float) -> None:
        """Raise the bias of experts that got less than an even share of ``usage``, lower that of the others.

        Args:
            usage: (num_experts,) how often each was chosen, in any unit.
        """
        assert self.bias is not None
        self.bias += rate * (usage.mean() - usage).sign()

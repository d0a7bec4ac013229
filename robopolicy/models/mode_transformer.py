"""Mixture of denoising experts: a transformer with feed-forward layers chosen by the noise level alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError
from robopolicy.models.experts import Experts
from robopolicy.models.routing import NoiseRouter, Route
from robopolicy.models.temporal_unet import NoiseLevelEmbedding
from robopolicy.models.transformer import SelfAttention

#: Spreads ln sigma over the embedding's frequencies: the highest is then 10 rad per unit of ln sigma.
LN_SIGMA_SCALE = 10.0


class RoutedBlock(nn.Module):
    """Pre-norm self-attention that sees the noise level in every token, then experts; each adds to its input.

    Args:
        hidden: units of each of ``num_experts`` experts, of which a row goes to ``k``.
        bias: of the router, see ``NoiseRouter``.
    """

    def __init__(self, dim: int, heads: int, num_experts: int, hidden: int, k: int, *, bias: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.attention = SelfAttention(dim, heads)
        self.router = NoiseRouter(dim, num_experts, k, bias=bias)
        self.experts = Experts(num_experts, dim, hidden)

    def forward(self, x: Tensor, noise_token: Tensor, route: Route) -> Tensor:
        """(rows, tokens, dim), (rows or 1, dim) -> (rows, tokens, dim)."""
        x = x + self.attention(self.norms[0](x) + noise_token[:, None])
        return x + self.experts(self.norms[1](x), route.index, route.weight)


class ModeTransformer(nn.Module):
    """Attends over [noise token, conditioning tokens, action tokens]; the output is read off the last ones.

    Args:
        action_dim, horizon: of a chunk.
        dim: features of a token; conditioning has as many.
        others: see ``RoutedBlock``.
    Source: MoDE (Reuss et al. 2024), "Efficient diffusion transformer policies with mixture of expert
        denoisers for multitask learning", sec. 3.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        *,
        dim: int,
        layers: int,
        heads: int,
        num_experts: int,
        hidden: int,
        k: int,
        bias: bool,
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"heads {heads} does not divide dim {dim}")
        self.horizon = horizon
        self.embed_action = nn.Linear(action_dim, dim)
        self.embed_noise = NoiseLevelEmbedding(dim)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, dim))
        self.blocks = nn.ModuleList(
            RoutedBlock(dim, heads, num_experts, hidden, k, bias=bias) for _ in range(layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, action_dim))

    def noise_token(self, sigma: Tensor) -> Tensor:
        """(rows,) standard deviations -> (rows, dim)."""
        return self.embed_noise(LN_SIGMA_SCALE * sigma.log())

    def routes(self, noise_token: Tensor, generator: torch.Generator | None = None) -> list[Route]:
        """Of every block, for (rows, dim); a generator means training, see ``NoiseRouter``."""
        return [block.router(noise_token, generator) for block in self.blocks]

    def forward(
        self, chunk: Tensor, conditioning: Tensor, noise_token: Tensor, routes: Sequence[Route]
    ) -> Tensor:
        """What is predicted, (rows, horizon, action_dim).

        Args:
            chunk: (rows, horizon, action_dim).
            conditioning: (rows, tokens, dim).
            noise_token: (rows, dim), or (1, dim) for all alike, as the routes have rows.
        """
        actions = self.embed_action(chunk) + self.position
        first = noise_token[:, None].expand(chunk.shape[0], 1, -1)
        x = torch.cat([first, conditioning, actions], dim=1)
        for block, route in zip(self.blocks, routes):
            x = block(x, noise_token, route)
        return self.head(x[:, -self.horizon :])

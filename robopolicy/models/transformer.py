"""Transformer blocks over the time axis of an action chunk, which look up observations by cross-attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.core.errors import ConfigError
from robopolicy.models.temporal_unet import NoiseLevelEmbedding


class FeedForward(nn.Module):
    """Two linear layers on each token, with ``hidden`` features in between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden)
        self.second = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, tokens, dim) -> (rows, tokens, dim)."""
        return self.second(functional.gelu(self.first(x)))


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to one another (Vaswani et al. 2017)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, tokens, dim) -> (rows, tokens, dim)."""
        parts = self.query_key_value(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        found = functional.scaled_dot_product_attention(*parts.chunk(3, dim=1))
        return self.output(found.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a memory, in the order that is cheap for a short memory.

    A head's score of token x for memory token m is (Wq x)'(Wk m) = x'(Wq' Wk m), and what m then adds to x
    is Wo Wv m: both factors are known from the memory alone (``look_up``), once for all tokens, denoising
    steps and candidates. The query's bias would repeat that of the norm ahead, the key's cancels in the
    softmax; there are none.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def look_up(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, memory tokens, dim) -> scores' factor (rows, dim, heads * memory tokens), and what is added,
        (rows, heads * memory tokens, dim)."""
        _, tokens, dim = memory.shape
        size = dim // self.heads

        def by_head(x: Tensor) -> Tensor:  # (heads, rows * tokens, size)
            return x.reshape(-1, self.heads, size).transpose(0, 1)

        key = by_head(self.key(memory)) @ (self.query.weight.view(self.heads, size, dim) * size**-0.5)
        value = by_head(self.value(memory)) @ self.output.weight.view(dim, self.heads, size).permute(1, 2, 0)
        key = key.reshape(self.heads, -1, tokens, dim).permute(1, 3, 0, 2)
        value = value.reshape(self.heads, -1, tokens, dim).transpose(0, 1)
        return key.reshape(-1, dim, self.heads * tokens), value.reshape(-1, self.heads * tokens, dim)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(rows, tokens, dim) and the results of ``look_up`` -> (rows, tokens, dim)."""
        weight = (x @ key).unflatten(-1, (self.heads, -1)).softmax(dim=-1)
        return weight.flatten(2) @ value + self.output.bias


class Block(nn.Module):
    """Pre-norm self-attention, cross-attention to a memory, feed-forward; each adds to its input.

    Norms have no weights of their own; scale and shift after each, and the gate of what the part adds, are
    given (adaptive layer norm, Peebles and Xie 2023).

    Args:
        feed_forward: (rows, tokens, dim), then whatever ``route`` holds, to (rows, tokens, dim).
        dropout: of what each part adds.
    """

    def __init__(self, dim: int, heads: int, *, feed_forward: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"heads {heads} does not divide dim {dim}")
        self.norms = nn.ModuleList(nn.LayerNorm(dim, elementwise_affine=False) for _ in range(3))
        self.self_attention = SelfAttention(dim, heads)
        self.cross_attention = CrossAttention(dim, heads)
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, found: tuple[Tensor, ...], modulation: Tensor, *route: Tensor) -> Tensor:
        """(rows, tokens, dim) -> (rows, tokens, dim).

        Args:
            found: of the memory, see ``CrossAttention.look_up``.
            modulation: (rows or 1, 9, 1, dim): scale, shift and gate of each part.
        """
        attend = partial(_with, self.cross_attention, found)
        runs: list[Callable[[Tensor], Tensor]] = [
            self.self_attention,
            attend,
            partial(_with, self.feed_forward, route),
        ]
        numbers = iter(modulation.unbind(1))
        for norm, run in zip(self.norms, runs):
            scale, shift, gate = (next(numbers) for _ in range(3))
            x = torch.addcmul(x, gate, self.dropout(run(torch.addcmul(shift, norm(x), scale))))
        return x


def _with(run: Callable[..., Tensor], further: tuple[Tensor, ...], x: Tensor) -> Tensor:
    return run(x, *further)


class TransformerDenoiser(nn.Module):
    """Predicts noise, sample or velocity for a noisy action chunk: one token per action.

    The noise level modulates every norm; so do the observations, besides being attended to. A modulation is
    linear in the two together, so each has its share, and the observations' is found once (``look_up``).

    Args:
        action_dim: features of an action.
        horizon: actions of a chunk.
        memory: tokens of the conditioning.
        feed_forward: makes a block's feed-forward part; the default is a ``FeedForward`` 4 times as wide.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        memory: int,
        *,
        dim: int = 128,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        feed_forward: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        make = feed_forward or (lambda: FeedForward(dim, 4 * dim))
        self.embed_action = nn.Linear(action_dim, dim)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, dim))
        self.embed_level = nn.Sequential(NoiseLevelEmbedding(dim), nn.SiLU())
        self.summary = nn.Sequential(nn.Flatten(), nn.Linear(memory * dim, dim), nn.SiLU())
        self.blocks = nn.ModuleList(
            Block(dim, heads, feed_forward=make(), dropout=dropout) for _ in range(layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, action_dim))
        self.modulation = nn.Linear(dim, layers * 9 * dim)
        nn.init.zeros_(self.modulation.weight)
        with torch.no_grad():  # scales 1; shifts and gates 0, so that every block begins as the identity
            self.modulation.bias.copy_(torch.eye(3)[0].repeat(layers * 3).repeat_interleave(dim))

    def forward(
        self,
        chunk: Tensor,
        level: Tensor,
        conditioning: Tensor,
        routes: Sequence[tuple[Tensor, ...]] | None = None,
    ) -> Tensor:
        """The prediction, (rows, horizon, action_dim).

        Args:
            chunk: (rows, horizon, action_dim).
            level: (rows,) or (1,) noise level.
            conditioning: (rows, memory tokens, dim).
            routes: what each block's feed-forward part takes besides its tokens.
        """
        found = [block.cross_attention.look_up(conditioning) for block in self.blocks]
        modulation = self.modulation_of_level(level) + self.modulation_of_memory(conditioning)
        return self._run(chunk, modulation, found, routes)

    def modulation_of_level(self, level: Tensor) -> Tensor:
        """(rows,) or (1,) -> (rows or 1, layers * 9 * dim): the noise level's share."""
        return functional.linear(self.embed_level(level), self.modulation.weight)

    def modulation_of_memory(self, conditioning: Tensor) -> Tensor:
        """(rows, memory tokens, dim) -> (rows, layers * 9 * dim): the observations' share, with the bias."""
        return self.modulation(self.summary(conditioning))

    def look_up(self, conditioning: Tensor) -> Tensor:
        """(rows, memory tokens, dim) -> (rows, n, dim): all that ``denoise`` takes of the conditioning, the
        same for every denoising step and candidate."""
        dim = self.position.shape[1]
        parts = [self.modulation_of_memory(conditioning)]
        for block in self.blocks:
            parts += [part.flatten(1) for part in block.cross_attention.look_up(conditioning)]
        return torch.cat(parts, dim=1).unflatten(1, (-1, dim))

    def denoise(
        self,
        chunk: Tensor,
        modulation_of_level: Tensor,
        found: Tensor,
        routes: Sequence[tuple[Tensor, ...]] | None = None,
    ) -> Tensor:
        """As ``forward``, from what ``look_up`` found and the noise level's share of the modulation."""
        dim, layers = self.position.shape[1], len(self.blocks)
        size = (found.shape[1] - 9 * layers) // (2 * layers)
        modulation, *parts = found.split([9 * layers, *([size] * 2 * layers)], dim=1)
        pairs = [(key.reshape(-1, dim, size), value) for key, value in zip(parts[::2], parts[1::2])]
        return self._run(chunk, modulation.flatten(1) + modulation_of_level, pairs, routes)

    def _run(
        self,
        chunk: Tensor,
        modulation: Tensor,
        found: Sequence[tuple[Tensor, ...]],
        routes: Sequence[tuple[Tensor, ...]] | None = None,
    ) -> Tensor:
        x = self.embed_action(chunk) + self.position
        shares = modulation.unflatten(1, (len(self.blocks), 9, 1, -1)).unbind(1)
        for i, (block, parts, share) in enumerate(zip(self.blocks, found, shares)):
            x = block(x, parts, share, *(routes[i] if routes else ()))
        return self.head(x)

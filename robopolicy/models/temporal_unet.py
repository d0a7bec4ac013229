"""Conditional 1-D U-Net over the time axis of an action chunk (Chi et al. 2023, after Janner et al. 2022)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import linear

from robopolicy.models.convolution import Convolution, TransposedConvolution


class NoiseLevelEmbedding(nn.Module):
    """Sinusoidal features of the denoising step, then a small MLP: (rows,) -> (rows, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.register_buffer(
            "frequencies", torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1)), persistent=False
        )
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))

    def forward(self, step: Tensor) -> Tensor:
        phase = step[:, None].float() * self.frequencies
        return self.mlp(torch.cat([phase.sin(), phase.cos()], dim=-1))


class ConvBlock(nn.Sequential):
    """Convolution, group norm, Mish."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int) -> None:
        super().__init__(
            Convolution(channels_in, channels_out, kernel, padding=kernel // 2),
            nn.GroupNorm(groups, channels_out),
            nn.Mish(),
        )


class FilmResidualBlock(nn.Module):
    """Two convolutions; the conditioning scales and shifts the channels in between (FiLM)."""

    def __init__(
        self, channels_in: int, channels_out: int, conditioning: int, kernel: int, groups: int
    ) -> None:
        super().__init__()
        self.first = ConvBlock(channels_in, channels_out, kernel, groups)
        self.second = ConvBlock(channels_out, channels_out, kernel, groups)
        # applied by TemporalUNet, to the observation's and the noise level's shares apart
        self.film = nn.Sequential(nn.Mish(), nn.Linear(conditioning, 2 * channels_out))
        self.skip = (
            Convolution(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        )

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """(rows, channels_in, time) and (rows, channels_out) each -> (rows, channels_out, time)."""
        return self.second((1 + scale[..., None]) * self.first(x) + shift[..., None]) + self.skip(x)


class TemporalUNet(nn.Module):
    """Predicts noise, sample or velocity for a noisy action chunk.

    Args:
        action_dim: channels of the chunk.
        conditioning_dim: size of the observation embedding.
        channels: of each resolution; every level but the last halves the time axis, so the
            prediction horizon must be a multiple of 2 ** (len(channels) - 1).
    """

    def __init__(
        self,
        action_dim: int,
        conditioning_dim: int,
        channels: tuple[int, ...] = (64, 128, 256),
        *,
        step_embedding: int = 64,
        kernel: int = 5,
        groups: int = 8,
    ) -> None:
        super().__init__()
        self.step_embedding = step_embedding
        self.embed_step = NoiseLevelEmbedding(step_embedding)
        conditioning = conditioning_dim + step_embedding

        def block(channels_in: int, channels_out: int) -> FilmResidualBlock:
            return FilmResidualBlock(channels_in, channels_out, conditioning, kernel, groups)

        self.down = nn.ModuleList()
        for i, (a, b) in enumerate(zip((action_dim, *channels), channels)):
            halve = Convolution(b, b, 3, stride=2, padding=1) if i < len(channels) - 1 else nn.Identity()
            self.down.append(nn.ModuleList([block(a, b), block(b, b), halve]))
        self.middle = nn.ModuleList([block(channels[-1], channels[-1]) for _ in range(2)])
        self.up = nn.ModuleList()
        for a, b in reversed(list(pairwise(channels))):
            double = TransposedConvolution(a, a, 4, stride=2, padding=1)
            self.up.append(nn.ModuleList([block(2 * b, a), block(a, a), double]))
        self.head = nn.Sequential(
            ConvBlock(channels[0], channels[0], kernel, groups), Convolution(channels[0], action_dim, 1)
        )

    @property
    def film_blocks(self) -> list[FilmResidualBlock]:
        """The blocks that FiLM modulates, in the order in which they run."""
        pairs = [pair[:2] for pair in self.down], [list(self.middle)], [pair[:2] for pair in self.up]
        return [block for group in pairs for pair in group for block in pair]

    @property
    def film_sizes(self) -> list[int]:
        """How a FiLM row splits: scale and shift of each block, in the order in which they run."""
        return [size // 2 for block in self.film_blocks for size in [block.film[1].out_features] * 2]

    def film_of_conditioning(self, conditioning: Tensor) -> Tensor:
        """(rows, conditioning_dim) -> (rows, sum(film_sizes)): the observation's share, biases included.

        A block's FiLM layer is linear in mish([conditioning; step]), so it is a sum of two shares, and
        this one is the same for every denoising step and every candidate.
        """
        active = functional.mish(conditioning)
        layers = [block.film[1] for block in self.film_blocks]
        shares = [linear(active, f.weight[:, : -self.step_embedding], f.bias) for f in layers]
        return torch.cat(shares, dim=-1)

    def film_of_step(self, step: Tensor) -> Tensor:
        """(rows,) or (1,) -> (rows, sum(film_sizes)) or (1, ...): the noise level's share."""
        active = functional.mish(self.embed_step(step))
        layers = [block.film[1] for block in self.film_blocks]
        return torch.cat([linear(active, f.weight[:, -self.step_embedding :]) for f in layers], dim=-1)

    def forward(self, chunk: Tensor, step: Tensor, conditioning: Tensor) -> Tensor:
        """chunk (rows, horizon, action_dim), step (rows,) or (1,), conditioning (rows, conditioning_dim)."""
        return self.denoise(chunk, self.film_of_conditioning(conditioning) + self.film_of_step(step))

    def denoise(self, chunk: Tensor, film: Tensor) -> Tensor:
        """As ``forward``, from the sum of the two shares (rows, sum(film_sizes))."""
        parts = iter(film.split(self.film_sizes, dim=-1))

        def run(block: nn.Module, x: Tensor) -> Tensor:
            return block(x, next(parts), next(parts))

        x = rearrange(chunk, "rows time action -> rows action time")
        skips = []
        for first, second, halve in self.down:
            x = run(second, run(first, x))
            skips.append(x)
            x = halve(x)
        for block in self.middle:
            x = run(block, x)
        for first, second, double in self.up:
            x = double(run(second, run(first, torch.cat([x, skips.pop()], dim=1))))
        return rearrange(self.head(x), "rows action time -> rows time action")

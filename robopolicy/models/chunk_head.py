"""For policies that give a chunk in one pass: the network, and what their modules have in common."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.observation_encoder import ObservationConfig, ObservationEncoder
from robopolicy.models.policy_module import PolicyModule


class ResidualMlp(nn.Module):
    """Pre-norm residual blocks between two linear layers: (rows, dim_in) -> (rows, dim_out).

    Args:
        width: of the residual stream; each block widens it ``widening`` times in between.
        blocks: how many.
    Raises:
        ConfigError: names the option.
    """

    def __init__(self, dim_in: int, dim_out: int, *, width: int, blocks: int, widening: int = 2) -> None:
        if width < 1 or blocks < 1:
            raise ConfigError(f"width and blocks must be >= 1, got {width} and {blocks}")
        super().__init__()
        self.enter = nn.Linear(dim_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, widening * width),
                nn.GELU(approximate="tanh"),  # the other one takes three times as long on a CPU
                nn.Linear(widening * width, width),
            )
            for _ in range(blocks)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim_out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return self.leave(x)


class DirectModule(PolicyModule):
    """One pass and no iteration; its network runs in ``prepare``, once however many candidates there are.

    Args:
        noise_shape: of one candidate, see ``PolicySpecs``.
    """

    def __init__(
        self, specs: PolicySpecs, observation: ObservationConfig, noise_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.policy_specs = dataclasses.replace(specs, noise_shape=noise_shape, takes_prefix=False)
        self.encoder = ObservationEncoder(specs, observation)
        self.register_buffer("steps", torch.zeros(1, 1), persistent=False)  # one, without parameters

    @property
    def iterates(self) -> bool:
        return False

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        return self.encoder(observation, generator)

    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        """All of ``sample``, where ``chunk`` is its noise: there is one iteration."""
        return self.sample(conditioning, chunk)

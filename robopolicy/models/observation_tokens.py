"""Observations as tokens to attend to: one per observation step, and one for the instruction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robopolicy.core.specs import PolicySpecs
from robopolicy.models.observation_encoder import ObservationConfig, ObservationEncoder


class ObservationTokens(nn.Module):
    """An ``ObservationEncoder`` whose parts are projected to the features of a transformer.

    Args:
        dim: features of a token.
    """

    def __init__(self, specs: PolicySpecs, config: ObservationConfig, dim: int) -> None:
        super().__init__()
        self.parts = ObservationEncoder(specs, config)
        self.project = nn.Linear(self.parts.step_dim, dim)
        self.position = nn.Parameter(0.02 * torch.randn(self.parts.horizon, dim))
        self.words = nn.Linear(config.instruction_features, dim) if self.parts.words else None

    @property
    def count(self) -> int:
        """Tokens."""
        return self.parts.horizon + (self.words is not None)

    def forward(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """(batch, count, dim), the instruction last; a generator means training, so augment."""
        tokens = self.project(self.parts.steps(observation, generator)) + self.position
        instruction = self.parts.instruction(observation)
        if instruction is None or self.words is None:
            return tokens
        return torch.cat([tokens, self.words(instruction)[:, None]], dim=1)

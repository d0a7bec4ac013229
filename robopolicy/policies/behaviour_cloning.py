"""Behaviour cloning: the whole chunk by regression, the plainest baseline.

One observation gives one chunk, so where demonstrations disagree it gives something in between (the mean
for "mse", the median of each number for "l1"): ``benchmarks/mode_coverage.py`` shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.chunk_head import DirectModule, ResidualMlp
from robopolicy.models.diffusion_module import masked_mean
from robopolicy.models.observation_encoder import ObservationConfig

LOSSES = ("l1", "mse")


@dataclass(frozen=True)
class Config:
    """Network and loss.

    Args:
        width, blocks: of the residual perceptron.
        regression: "l1" or "mse".
        loss_on_padding: train also on the held actions outside an episode.
    """

    width: int = 256
    blocks: int = 3
    regression: str = "l1"
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    loss_on_padding: bool = True

    def __post_init__(self) -> None:
        if self.regression not in LOSSES:
            raise ConfigError(f"regression {self.regression!r} is not one of {LOSSES}")


def build(config: Config, specs: PolicySpecs) -> BehaviourCloning:
    """The untrained module. ConfigError names an option out of range."""
    return BehaviourCloning(config, specs)


class BehaviourCloning(DirectModule):
    """Deterministic: it takes no noise, and its candidates are all the same."""

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        super().__init__(specs, config.observation, noise_shape=(0,))
        self.config = config
        self.network = ResidualMlp(
            self.encoder.dim,
            math.prod(specs.chunk_shape),
            width=config.width,
            blocks=config.blocks,
        )

    def prepare(self, conditioning: Tensor) -> Tensor:
        """(rows, prediction_horizon * action_dim), within the range of the data."""
        return self.network(conditioning).clamp(-1.0, 1.0)

    def sample(
        self,
        conditioning: Tensor,
        noise: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        return conditioning.unflatten(-1, self.policy_specs.chunk_shape)

    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        predicted = self.network(conditioning).float().unflatten(-1, self.policy_specs.chunk_shape)
        error = predicted - action
        error = error.abs() if self.config.regression == "l1" else error.square()
        return masked_mean(error.mean(-1), None if self.config.loss_on_padding else mask)

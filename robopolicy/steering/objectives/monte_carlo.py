"""Regression onto the returns that were seen: what the demonstrators' behaviour was worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robopolicy.core.errors import ConfigError
from robopolicy.datasets.transitions import ReturnRange, TransitionBatch
from robopolicy.models.critics import EnsembleCritic
from robopolicy.steering.objectives._objective import Objective

LOSSES = ("mse", "huber")


@dataclass(frozen=True)
class Config:
    """The plain baseline.

    Args:
        regression: "mse", whose minimum is the mean return; "huber" heeds outliers less and is biased where
            returns are skewed.
    Raises:
        ConfigError: names the field.
    """

    regression: str = "mse"

    def __post_init__(self) -> None:
        if self.regression not in LOSSES:
            raise ConfigError(f"regression {self.regression!r} is not one of {LOSSES}")


def build(config: Config, critic: EnsembleCritic, returns: ReturnRange) -> MonteCarlo:
    """The objective around a critic."""
    return MonteCarlo(config, critic, returns)


class MonteCarlo(Objective):
    """Q(s, chunk) = E[return that followed]."""

    def __init__(self, config: Config, critic: EnsembleCritic, returns: ReturnRange) -> None:
        super().__init__(critic, returns)
        self._loss = functional.mse_loss if config.regression == "mse" else functional.huber_loss

    def loss(self, batch: TransitionBatch, generator: torch.Generator) -> Tensor:
        values = self.critic.value(self.encode(batch.observation, generator), batch.action)
        self._metrics = {"value": values.detach().mean()}
        scale = self.critic.scale
        return self._loss(values / scale, (batch.mc_return / scale)[:, None].expand_as(values))

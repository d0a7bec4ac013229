"""Implicit Q-learning: the value of the better of what was done, never asking about what was not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.datasets.transitions import ReturnRange, TransitionBatch
from robopolicy.models.critics import EnsembleCritic, StateValue
from robopolicy.steering.objectives._objective import TargetConfig, TargetObjective, next_inputs, smallest


@dataclass(frozen=True)
class Config(TargetConfig):
    """Expectile regression.

    Args:
        expectile: 0.5 values what was done on average; towards 1, the best that was done.
    Raises:
        ConfigError: names the field.
    """

    expectile: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1:
            raise ConfigError(f"expectile {self.expectile} not in (0, 1)")


def build(config: Config, critic: EnsembleCritic, returns: ReturnRange) -> ImplicitQ:
    """The objective around a critic."""
    return ImplicitQ(config, critic, returns)


class ImplicitQ(TargetObjective):
    """V is the expectile of the target's Q over the chunks of the data; Q bootstraps from V.

    Source: Kostrikov et al. 2021, eqs. 5 and 6, with chunks for actions.
    """

    def __init__(self, config: Config, critic: EnsembleCritic, returns: ReturnRange) -> None:
        super().__init__(critic, returns, config.target_rate)
        self.config = config
        self.state_value = StateValue(critic.config, critic.policy_specs)
        self.state_value.set_returns(mean=returns.mean, deviation=returns.deviation)

    def loss(self, batch: TransitionBatch, generator: torch.Generator) -> Tensor:
        augment = generator if self.training else None
        with torch.no_grad():
            judged = self.target.value(self.target.encode(batch.observation, augment), batch.action)
            judged = smallest(judged, self.config.target_members, generator)
            following = self.state_value(next_inputs(batch), augment)
            target = self.bootstrapped(batch, following)
        scale = self.critic.scale
        value = self.state_value(batch.observation, augment)
        values = self.critic.value(self.encode(batch.observation, generator), batch.action)
        state_loss = expectile_loss((judged - value) / scale, self.config.expectile)
        chunk_loss = ((values - target[:, None]) / scale).square().mean()
        self._metrics = {
            "value": values.detach().mean(),
            "state_value": value.detach().mean(),
            "state_value_loss": state_loss.detach(),
            "temporal_difference": chunk_loss.detach(),
        }
        return state_loss + chunk_loss


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1(difference < 0)| * difference^2."""
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return (weight * difference.square()).mean()

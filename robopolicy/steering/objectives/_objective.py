"""What every objective is: a loss on transitions, and what it keeps besides the critic."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError
from robopolicy.core.language import INSTRUCTION
from robopolicy.datasets.transitions import ReturnRange, TransitionBatch
from robopolicy.models.critics import EnsembleCritic


class Objective(nn.Module, ABC):
    """Teaches a critic. All of it is trained and saved with the optimiser; ``critic`` alone is kept.

    Losses are in units of the returns' standard deviation, so that learning rate and weights do not depend
    on the reward.

    Args:
        critic: to be taught; is told of the returns' range.
        returns: of the training data.
    """

    def __init__(self, critic: EnsembleCritic, returns: ReturnRange) -> None:
        super().__init__()
        self.critic, self.returns = critic, returns
        critic.set_returns(mean=returns.mean, deviation=returns.deviation)
        self._metrics: dict[str, Tensor] = {}

    @abstractmethod
    def loss(self, batch: TransitionBatch, generator: torch.Generator) -> Tensor:
        """Scalar; changes neither weights nor buffers. Images are augmented while training."""

    def forward(self, batch: TransitionBatch, generator: torch.Generator) -> Tensor:
        """``loss``, as wrappers of modules call it."""
        return self.loss(batch, generator)

    def metrics(self) -> dict[str, float]:
        """What the last ``loss`` is worth logging besides its value; values are in units of return."""
        return {name: float(value) for name, value in self._metrics.items()}

    @torch.no_grad()
    def after_step(self) -> None:
        """Change what no gradient changes, once after each step of the optimiser."""

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """The critic's conditioning."""
        return self.critic.encode(observation, generator if self.training else None)


class TargetObjective(Objective):
    """With a slowly following copy of the critic, which targets are computed from.

    Args:
        rate: part of the way that the copy goes towards the critic after each step.
    """

    def __init__(self, critic: EnsembleCritic, returns: ReturnRange, rate: float) -> None:
        super().__init__(critic, returns)
        self.target = copy.deepcopy(critic).requires_grad_(False)
        self._rate = rate

    @torch.no_grad()
    def after_step(self) -> None:
        own, followed = list(self.target.parameters()), list(self.critic.parameters())
        torch._foreach_lerp_(own, followed, self._rate)

    def bootstrapped(self, batch: TransitionBatch, following: Tensor) -> Tensor:
        """(batch,) reward + discount * value of the next window, within what any policy can reach."""
        target = batch.reward + batch.discount * following
        return target.clamp(self.returns.lowest, self.returns.highest)


@dataclass(frozen=True)
class TargetConfig:
    """Of objectives with a target copy.

    Args:
        target_rate: part of the way that the copy goes towards the critic after each step.
        target_members: random members of the copy whose smallest value is the target; 0 takes all, and the
            more there are, the lower the targets become.
    """

    target_rate: float = 0.005
    target_members: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.target_rate <= 1:
            raise ConfigError(f"target_rate {self.target_rate} not in (0, 1]")
        if self.target_members < 0:
            raise ConfigError(f"target_members must be >= 0, got {self.target_members}")


def smallest(values: Tensor, members: int, generator: torch.Generator) -> Tensor:
    """(..., members) to (...): the smallest, among ``members`` random ones unless 0.

    Source: clipped double Q-learning (Fujimoto et al. 2018, eq. 10); random members, REDQ (Chen et al. 2021).
    """
    if 0 < members < values.shape[-1]:
        chosen = torch.randperm(values.shape[-1], generator=generator, device=values.device)[:members]
        values = values[..., chosen]
    return values.amin(-1)


def next_inputs(batch: TransitionBatch) -> dict[str, Tensor]:
    """Network inputs at the next window: an episode keeps its instruction."""
    told = {INSTRUCTION: batch.observation[INSTRUCTION]} if INSTRUCTION in batch.observation else {}
    return {**told, **batch.next_observation}

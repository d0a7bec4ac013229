"""Calibrated Q-learning: temporal differences, with the values of unseen chunks held down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.datasets.transitions import ReturnRange, TransitionBatch
from robopolicy.models.critics import EnsembleCritic
from robopolicy.models.options import check_not_negative
from robopolicy.steering.objectives._objective import TargetConfig, TargetObjective, next_inputs, smallest
from robopolicy.steering.objectives._unseen import UnseenConfig, draw_unseen

BACKUPS = ("auto", "data", "policy_mean", "policy_max")


@dataclass(frozen=True)
class Config(TargetConfig, UnseenConfig):
    """Cal-QL; without ``calibrated``, CQL.

    Args:
        alpha: weight of holding unseen chunks down. It and the temperature count in standard deviations of
            the returns: V-GPS' 5 and 1 are 0.3 and 0.06 where that is 17, as with a reward of -1 per step.
        temperature: of the soft maximum over them.
        calibrated: chunks that are likely here are not held below the return that was seen.
        backup: what happens next: "data", the chunk that the demonstrator did; "policy_mean" or "policy_max",
            the mean or the best of the policy's; "auto", "policy_mean" where there is a policy.
    Raises:
        ConfigError: names the field.
    """

    alpha: float = 0.3
    temperature: float = 0.1
    calibrated: bool = True
    backup: str = "auto"

    def __post_init__(self) -> None:
        TargetConfig.__post_init__(self)
        UnseenConfig.__post_init__(self)
        check_not_negative(self, "alpha")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")
        if self.backup not in BACKUPS:
            raise ConfigError(f"backup {self.backup!r} is not one of {BACKUPS}")


def build(config: Config, critic: EnsembleCritic, returns: ReturnRange) -> CalibratedQ:
    """The objective around a critic."""
    return CalibratedQ(config, critic, returns)


class CalibratedQ(TargetObjective):
    """Source: CQL (Kumar et al. 2020, eq. 4, with a prior), Cal-QL (Nakamoto et al. 2023, eq. 5.1); derived
    in ``docs/derivations.md``."""

    def __init__(self, config: Config, critic: EnsembleCritic, returns: ReturnRange) -> None:
        super().__init__(critic, returns, config.target_rate)
        self.config = config

    def loss(self, batch: TransitionBatch, generator: torch.Generator) -> Tensor:
        conditioning = self.encode(batch.observation, generator)
        values = self.critic.value(conditioning, batch.action)
        with torch.no_grad():
            target = self.bootstrapped(batch, self._following(batch, generator))
        scale = self.critic.scale
        error = ((values - target[:, None]) / scale).square().mean()
        gap = self._overrated(conditioning, values, batch, generator) / scale
        self._metrics = {
            "value": values.detach().mean(),
            "temporal_difference": error.detach(),
            "unseen_gap": (gap * scale).detach(),
        }
        return error + self.config.alpha * gap

    def _overrated(
        self, conditioning: Tensor, values: Tensor, batch: TransitionBatch, generator: torch.Generator
    ) -> Tensor:
        """Soft maximum of the values of unseen chunks less the data's, mean over rows and members."""
        if rows := self.config.unseen_rows:  # held-out batches are in the order of time
            chosen = torch.randperm(len(values), generator=generator, device=values.device)[:rows]
            batch, conditioning, values = batch.rows(chosen), conditioning[chosen], values[chosen]
        unseen = draw_unseen(self.config, batch, generator)
        found = self.critic.values(conditioning, torch.cat([unseen.likely, unseen.other], dim=1))
        if self.config.calibrated:
            likely, other = found.tensor_split([unseen.likely.shape[1]], dim=1)
            found = torch.cat([likely.maximum(batch.mc_return[:, None, None]), other], dim=1)
        return (soft_maximum(found, self.config.temperature * self.critic.scale) - values).mean()

    def _following(self, batch: TransitionBatch, generator: torch.Generator) -> Tensor:
        """(batch,) value of the next window."""
        chunks, backup, members = batch.next_policy_chunks, self.config.backup, self.config.target_members
        augment = generator if self.training else None
        conditioning = self.target.encode(next_inputs(batch), augment)
        if backup == "auto":
            backup = "data" if chunks is None else "policy_mean"
        if backup == "data":
            return smallest(self.target.value(conditioning, batch.next_action), members, generator)
        if chunks is None:
            raise ConfigError(f"backup {backup!r} needs a policy; without one take 'data'")
        found = smallest(self.target.values(conditioning, chunks), members, generator)
        return found.amax(1) if backup == "policy_max" else found.mean(1)


def soft_maximum(values: Tensor, temperature: Tensor | float) -> Tensor:
    """(batch, n, members) to (batch, members): T log mean exp(values / T), between mean and maximum."""
    count = torch.tensor(float(values.shape[1]), device=values.device)
    return temperature * ((values / temperature).logsumexp(dim=1) - count.log())

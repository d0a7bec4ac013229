"""What every critic implements in torch, and the adapter that scores candidates in physical units."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.core.errors import ShapeError
from robopolicy.core.language import INSTRUCTION, InstructionInput, TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, check_inputs
from robopolicy.core.specs import PolicySpecs


class CriticModule(nn.Module, ABC):
    """A value function on normalised tensors: the encoder runs once per observation, ``value`` per chunk.

    Attributes:
        policy_specs: observations it looks at, the action, and the horizons of the chunks it scores.
    """

    policy_specs: PolicySpecs

    @abstractmethod
    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Observation windows, as ``PolicyModule.encode`` takes them, to (batch, ...) of a fixed size."""

    @abstractmethod
    def value(self, conditioning: Tensor, chunk: Tensor) -> Tensor:
        """Expected discounted return of each chunk [-], by each member of the ensemble.

        Args:
            conditioning: (rows, ...) as ``encode`` gives it.
            chunk: (rows, prediction_horizon, action_dim) normalised.
        Returns:
            (rows, members).
        """


class TorchCritic:
    """A module as a ``core.critic.Critic``: physical units in, values out, NaN ones as they are.

    Args:
        normalisers: of the critic's own training data.
        digest: of what was saved; empty for one that never was.
        text_encoder: of a critic that follows instructions.
        facts: what its training says about it: objective, reward, discount.
    """

    def __init__(
        self,
        module: CriticModule,
        normalisers: Normalisers,
        device: str = "cpu",
        text_encoder: TextEncoder | None = None,
        *,
        digest: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module.to(device).eval()
        self.normalisers, self.device = normalisers, device
        self.text_encoder, self.digest, self.facts = text_encoder, digest, dict(facts or {})
        self._instruction = InstructionInput(module.policy_specs.instruction_dim, text_encoder)

    @property
    def critic_specs(self) -> PolicySpecs:
        return self.module.policy_specs

    @property
    def critic_normalisers(self) -> Normalisers:
        return self.normalisers

    @torch.inference_mode()
    def values(self, observation: Arrays, candidates: Float32, context: Context = NO_CONTEXT) -> Float32:
        """(batch, n, members); see ``core.critic.Critic.values``. Observations it does not look at are
        ignored; a candidate that is not finite gets values that are not."""
        specs = self.critic_specs
        if candidates.ndim != 4 or candidates.shape[2:] != specs.chunk_shape:
            raise ShapeError(f"candidates must be (batch, n, {specs.chunk_shape}), got {candidates.shape}")
        batch, n = candidates.shape[:2]
        nothing = np.zeros((batch, n), np.float32)
        check_inputs(dataclasses.replace(specs, noise_shape=()), observation, nothing)
        inputs = self.normalisers.observations(specs.specs, observation)
        if specs.instruction_dim:
            inputs = {**inputs, INSTRUCTION: self._instruction.rows(context.instruction, batch)}
        tensors = {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()}
        conditioning = self.module.encode(tensors).repeat_interleave(n, dim=0)
        chunk = torch.from_numpy(self.normalisers.action.forward(candidates)).to(self.device).flatten(0, 1)
        values: Float32 = self.module.value(conditioning, chunk).float().cpu().numpy()
        return values.reshape(batch, n, -1)

"""What every critic implements in torch, and the adapter that scores candidates in physical units."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from robopolicy.core.errors import NonFiniteValueError
from robopolicy.core.language import INSTRUCTION, InstructionInput, TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32
from robopolicy.core.specs import PolicySpecs


class CriticModule(nn.Module, ABC):
    """A value function on normalised tensors: the encoder runs once per observation, ``value`` per chunk.

    Its observations, chunk and normalisers are those of the policy whose candidates it scores.
    """

    policy_specs: PolicySpecs

    @abstractmethod
    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        """Observation windows, as ``PolicyModule.encode`` takes them, to (batch, ...) of a fixed size."""

    @abstractmethod
    def value(self, conditioning: Tensor, chunk: Tensor) -> Tensor:
        """Expected discounted return of each chunk [-].

        Args:
            conditioning: (rows, ...) as ``encode`` gives it.
            chunk: (rows, prediction_horizon, action_dim) normalised.
        Returns:
            (rows,).
        """


class TorchCritic:
    """A critic on arrays in physical units, as ``runtime.policy.BundlePolicy.values``.

    Args:
        text_encoder: the policy's, where it follows instructions.
    """

    def __init__(
        self,
        module: CriticModule,
        normalisers: Normalisers,
        device: str = "cpu",
        text_encoder: TextEncoder | None = None,
    ) -> None:
        self.module = module.to(device).eval()
        self.normalisers, self.device = normalisers, device
        self._instruction = InstructionInput(module.policy_specs.instruction_dim, text_encoder)

    @torch.inference_mode()
    def values(self, observation: Arrays, candidates: Float32, context: Context = NO_CONTEXT) -> Float32:
        """(batch, n) for candidates (batch, n, prediction_horizon, action_dim)."""
        batch, n = candidates.shape[:2]
        inputs = self.normalisers.observations(self.module.policy_specs.specs, observation)
        if self.module.policy_specs.instruction_dim:
            inputs = {**inputs, INSTRUCTION: self._instruction.rows(context.instruction, batch)}
        tensors = {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()}
        conditioning = self.module.encode(tensors).repeat_interleave(n, dim=0)
        chunk = torch.from_numpy(self.normalisers.action.forward(candidates)).to(self.device).flatten(0, 1)
        values: Float32 = self.module.value(conditioning, chunk).float().cpu().numpy().reshape(batch, n)
        if not torch.isfinite(torch.from_numpy(values)).all():
            raise NonFiniteValueError("the critic's values are not finite")
        return values

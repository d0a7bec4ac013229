"""What every policy family implements in torch, and the adapter that makes it a ``core.Policy``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from robopolicy.core.errors import NonFiniteValueError
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, check_inputs
from robopolicy.core.specs import PolicySpecs


class PolicyModule(nn.Module, ABC):
    """A policy on normalised tensors. The encoder runs once per observation, ``sample`` per candidate.

    ``steps`` is a (denoising_steps, parameters) tensor; ``denoise`` is the same network for every
    row of it, which is what lets the exporter trace one step and unroll the loop itself.
    """

    policy_specs: PolicySpecs
    steps: Tensor

    @property
    @abstractmethod
    def conditioning_dim(self) -> int:
        """Size of the observation embedding."""

    @abstractmethod
    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Observation windows to (batch, conditioning_dim).

        Args:
            observation: states (batch, observation_horizon, features) normalised; images
                (batch, observation_horizon, height, width, 3) uint8.
            generator: source of augmentation; None means none, as at inference.
        """

    @abstractmethod
    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Scalar training loss on normalised chunks (batch, prediction_horizon, action_dim)."""

    @abstractmethod
    def denoise(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        """One inference iteration.

        Args:
            chunk: (rows, prediction_horizon, action_dim); the first one is the noise.
            conditioning: (rows, conditioning_dim).
            parameters: one row of ``steps``.
        """

    def sample(self, conditioning: Tensor, noise: Tensor) -> Tensor:
        """(rows, conditioning_dim), (rows, *noise_shape) -> (rows, prediction_horizon, action_dim)."""
        chunk = noise
        for parameters in self.steps:
            chunk = self.denoise(chunk, conditioning, parameters)
        return chunk


class TorchPolicy:
    """A trained module as a ``robopolicy.core.policy.Policy``: physical units in and out."""

    def __init__(
        self, module: PolicyModule, normalisers: Normalisers, device: str = "cpu", digest: str = ""
    ) -> None:
        self.digest = digest
        self.module = module.to(device).eval()
        self.normalisers = normalisers
        self.device = device

    @property
    def policy_specs(self) -> PolicySpecs:
        return self.module.policy_specs

    @torch.inference_mode()
    def features(self, observation: Arrays) -> Float32:
        """(batch, conditioning_dim): how the policy sees observation windows; see ``evaluation.ood``."""
        inputs = self.normalisers.observations(self.policy_specs.specs, observation)
        tensors = {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()}
        result: Float32 = self.module.encode(tensors).float().cpu().numpy()
        return result

    @torch.inference_mode()
    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """See ``core.policy.Policy.sample``."""
        batch, n = check_inputs(self.policy_specs, observation, noise)
        inputs = self.normalisers.observations(self.policy_specs.specs, observation)
        tensors = {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()}
        conditioning = self.module.encode(tensors).repeat_interleave(n, dim=0)
        rows = torch.from_numpy(noise).to(self.device).flatten(0, 1)
        chunk = self.module.sample(conditioning, rows).float().cpu().numpy()
        if not torch.isfinite(torch.from_numpy(chunk)).all():
            raise NonFiniteValueError("the policy's action chunk has non-finite values")
        return self.normalisers.action.inverse(chunk).reshape(batch, n, *self.policy_specs.chunk_shape)

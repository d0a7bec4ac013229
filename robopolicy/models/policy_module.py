"""What every policy family implements in torch, and the adapter that makes it a ``core.Policy``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from robopolicy.core.errors import NonFiniteValueError
from robopolicy.core.language import INSTRUCTION, InstructionInput, TextEncoder
from robopolicy.core.normalise import Normalisers
from robopolicy.core.policy import NO_CONTEXT, Arrays, Context, Float32, Prefix, check_inputs
from robopolicy.core.specs import PolicySpecs


class SamplingModule(nn.Module, ABC):
    """Draws chunks on normalised tensors. The encoder runs once per observation, ``sample`` per candidate.

    ``steps`` is a (denoising_steps, parameters) tensor; ``denoise`` is the same network for every
    row of it, which is what lets the exporter trace one step and unroll the loop itself.
    """

    policy_specs: PolicySpecs
    steps: Tensor

    @property
    def iterates(self) -> bool:
        """Whether ``sample`` is the inherited loop over ``denoise``: one step of it can be exported."""
        return type(self).sample is SamplingModule.sample

    @abstractmethod
    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Observation windows to conditioning, (batch, ...): a vector or tokens.

        Args:
            observation: states (batch, observation_horizon, features) normalised; images
                (batch, observation_horizon, height, width, 3) uint8; "instruction" (batch, instruction_dim)
                where the specs have one.
            generator: source of augmentation; None means none, as at inference.
        """

    def prepare(self, conditioning: Tensor) -> Tensor:
        """What ``denoise`` and ``sample`` take: conditioning, or what they would compute from it alone.

        Runs once per observation, ahead of all denoising steps and candidates, and in the exported
        encoder; training does not call it. (batch, ...) -> (batch, ...), a vector or tokens.
        """
        return conditioning

    @abstractmethod
    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        """One inference iteration.

        Args:
            chunk: (rows, prediction_horizon, action_dim); the first one is the noise.
            conditioning: (rows, ...) of ``prepare``.
            parameters: one row of ``steps``.
            prefix, prefix_weight: (rows, prediction_horizon, action_dim) normalised and (rows,
                prediction_horizon), see ``core.policy.Prefix``; given to policies that ``takes_prefix``.
        """

    def sample(
        self,
        conditioning: Tensor,
        noise: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        """Prepared conditioning and noise (rows, *noise_shape) -> (rows, prediction_horizon, action_dim)."""
        chunk = noise
        for parameters in self.steps:
            chunk = self.denoise(chunk, conditioning, parameters, prefix, prefix_weight)
        return chunk


class PolicyModule(SamplingModule):
    """A policy that can be trained."""

    @abstractmethod
    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Scalar training loss on normalised chunks (batch, prediction_horizon, action_dim)."""

    @torch.no_grad()
    def after_step(self) -> None:
        """Change what no gradient changes (a selection bias), once after each step of the optimiser.

        ``loss`` itself must change neither weights nor buffers: its step may still be refused.
        """

    def metrics(self) -> dict[str, float]:
        """What the last ``loss`` is worth logging besides its value: expert usage, parts of the loss."""
        return {}

    def inference_form(self) -> SamplingModule:
        """The same function of the same inputs, laid out for inference engines; what is exported."""
        return self


class TorchPolicy:
    """A trained module as a ``robopolicy.core.policy.Policy``: physical units in and out.

    Args:
        text_encoder: of a policy that follows instructions.
    """

    def __init__(
        self,
        module: PolicyModule,
        normalisers: Normalisers,
        device: str = "cpu",
        digest: str = "",
        text_encoder: TextEncoder | None = None,
    ) -> None:
        self.digest = digest
        self.text_encoder = text_encoder
        self._instruction = InstructionInput(module.policy_specs.instruction_dim, text_encoder)
        self.module = module.to(device).eval()
        self.normalisers = normalisers
        self.device = device

    @property
    def policy_specs(self) -> PolicySpecs:
        return self.module.policy_specs

    @torch.inference_mode()
    def features(self, observation: Arrays, context: Context = NO_CONTEXT) -> Float32:
        """(batch, features): how the policy sees observation windows, tokens one after the other; see
        ``evaluation.ood``."""
        batch = len(next(iter(observation.values())))
        conditioning = self.module.encode(self._inputs(observation, context, batch))
        result: Float32 = conditioning.flatten(1).float().cpu().numpy()
        return result

    @torch.inference_mode()
    def sample(self, observation: Arrays, noise: Float32, context: Context = NO_CONTEXT) -> Float32:
        """See ``core.policy.Policy.sample``."""
        batch, n = check_inputs(self.policy_specs, observation, noise)
        tensors = self._inputs(observation, context, batch)
        conditioning = self.module.prepare(self.module.encode(tensors)).repeat_interleave(n, dim=0)
        rows = torch.from_numpy(noise).to(self.device).flatten(0, 1)
        bound = self._bound(context.prefix, batch, n)
        chunk = self.module.sample(conditioning, rows, *bound).float().cpu().numpy()
        if not torch.isfinite(torch.from_numpy(chunk)).all():
            raise NonFiniteValueError("the policy's action chunk has non-finite values")
        return self.normalisers.action.inverse(chunk).reshape(batch, n, *self.policy_specs.chunk_shape)

    def _inputs(self, observation: Arrays, context: Context, batch: int) -> dict[str, Tensor]:
        """Normalised observations, and the embedded instruction where the policy takes one."""
        inputs = self.normalisers.observations(self.policy_specs.specs, observation)
        if self.policy_specs.instruction_dim:
            inputs = {**inputs, INSTRUCTION: self._instruction.rows(context.instruction, batch)}
        return {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()}

    def _bound(self, prefix: Prefix | None, batch: int, n: int) -> tuple[Tensor, ...]:
        """A prefix as two tensors of normalised rows, or nothing where there is none to heed."""
        if prefix is None or not self.policy_specs.takes_prefix:
            return ()
        prefix.check(self.policy_specs, batch)
        action = self.normalisers.action.forward(prefix.action)
        tensors = (torch.from_numpy(part).to(self.device) for part in (action, prefix.weight))
        return tuple(tensor.repeat_interleave(n, dim=0) for tensor in tensors)

"""What policies that denoise chunks by a table of steps have in common; families add encoder and denoiser."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robopolicy.core.specs import PolicySpecs
from robopolicy.models.ddim import ddim_update
from robopolicy.models.noise_schedule import NoiseSchedule, ScheduleConfig
from robopolicy.models.policy_module import PolicyModule, SamplingModule
from robopolicy.models.samplers import run_ddpm, run_dpm_solver


class TableSampling(SamplingModule):
    """Draws chunks by a table of steps, from ``predict``.

    Attributes:
        sampler: see ``ScheduleConfig``; "ddim" alone can be exported step by step.
        encoder: see ``DiffusionModule``.
    """

    sampler: str
    encoder: nn.Module
    denoiser: nn.Module

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        return self.encoder(observation, generator)

    def predict(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        """What the schedule's ``prediction`` says, for a row of ``steps``; in the chunk's shape."""
        return self.denoiser(chunk, parameters[:1], conditioning)

    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        predicted = self.predict(chunk, conditioning, parameters)
        return ddim_update(chunk, predicted, parameters, prefix, prefix_weight)

    @property
    def iterates(self) -> bool:
        return self.sampler == "ddim" and type(self).sample is TableSampling.sample

    def sample(
        self,
        conditioning: Tensor,
        noise: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        if self.sampler == "ddim":
            return super().sample(conditioning, noise, prefix, prefix_weight)

        def predict(chunk: Tensor, parameters: Tensor) -> Tensor:
            return self.predict(chunk, conditioning, parameters)

        run = run_ddpm if self.sampler == "ddpm" else run_dpm_solver
        return run(predict, self.steps, noise, prefix, prefix_weight)


def counted(steps: Tensor) -> Tensor:
    """A table of steps (denoising_steps, parameters) whose first parameter is the step's number, from 0, in
    place of its noise level: what an inference form looks its own tables up by."""
    number = torch.arange(len(steps), dtype=steps.dtype, device=steps.device)
    return torch.cat([number[:, None], steps[:, 1:]], dim=1)


class DiffusionModule(TableSampling, PolicyModule):
    """Noise in, chunk out; one candidate's noise is the chunk-shaped start of the chain, and for the sampler
    "ddpm" what the steps add to it: (denoising_steps, prediction_horizon, action_dim).

    Args:
        denoiser: takes chunk (rows, horizon, action_dim), level (rows,) or (1,), and conditioning; gives
            what the schedule's ``prediction`` says, in the chunk's shape.
        loss_on_padding: train also on the held actions outside an episode.
    """

    def __init__(
        self,
        specs: PolicySpecs,
        encoder: nn.Module,
        denoiser: nn.Module,
        schedule: ScheduleConfig,
        *,
        loss_on_padding: bool = True,
    ) -> None:
        super().__init__()
        self.sampler = schedule.sampler
        count = (schedule.denoising_steps,) if self.sampler == "ddpm" else ()
        noise_shape = (*count, *specs.chunk_shape)
        self.policy_specs = dataclasses.replace(specs, noise_shape=noise_shape, takes_prefix=True)
        self.encoder = encoder
        self.denoiser = denoiser
        self.schedule = NoiseSchedule(schedule)
        self.loss_on_padding = loss_on_padding
        self.register_buffer("steps", self.schedule.rows(), persistent=False)

    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        level = self.schedule.draw_levels(len(action), generator)
        predicted = self.denoiser(self.schedule.corrupt(action, noise, level), level, conditioning)
        error = (predicted.float() - self.schedule.target(action, noise, level)).square().mean(-1)
        return masked_mean(error, None if self.loss_on_padding else mask)


def masked_mean(error: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (batch, horizon), zero where the mask does not hold.

    Not the mean of what is left: a row would weigh more beside rows with fewer, and processes that share a
    batch, or parts that it is computed in, would make another gradient than the whole.
    """
    return error.mean() if mask is None else (error * mask).mean()

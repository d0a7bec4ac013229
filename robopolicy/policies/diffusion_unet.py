"""Diffusion policy with a temporal U-Net (Chi et al. 2023).

Predicts the clean chunk rather than the noise by default: in short trainings it does better
(see docs/experiments.md); ``schedule.prediction`` "epsilon" is the paper's choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.diffusion_module import DiffusionModule, TableSampling, counted
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.observation_encoder import ObservationConfig, ObservationEncoder
from robopolicy.models.policy_module import SamplingModule
from robopolicy.models.temporal_unet import TemporalUNet
from robopolicy.models.temporal_unet_inference import InferenceUNet

GROUPS = 8  # of every group norm, as TemporalUNet takes it


@dataclass(frozen=True)
class Config:
    """Network and noise schedule.

    Args:
        channels: of the U-Net's resolutions.
        step_embedding: features of the noise level.
        loss_on_padding: train also on the held actions outside an episode.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    step_embedding: int = 64
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    loss_on_padding: bool = True

    def __post_init__(self) -> None:
        if not self.channels or any(c < 1 or c % GROUPS for c in self.channels):
            raise ConfigError(f"channels must be multiples of {GROUPS} (group norm), got {self.channels}")
        if self.step_embedding < 4 or self.step_embedding % 2:
            raise ConfigError(f"step_embedding must be even and >= 4, got {self.step_embedding}")


def build(config: Config, specs: PolicySpecs) -> DiffusionUNet:
    """The untrained module. ConfigError when the prediction horizon cannot be halved often enough."""
    return DiffusionUNet(config, specs)


class DiffusionUNet(DiffusionModule):
    denoiser: TemporalUNet

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        halvings = 2 ** (len(config.channels) - 1)
        if specs.horizons.prediction % halvings:
            raise ConfigError(
                f"prediction horizon {specs.horizons.prediction} must be a multiple of {halvings} "
                f"for {len(config.channels)} U-Net levels"
            )
        encoder = ObservationEncoder(specs, config.observation)
        denoiser = TemporalUNet(
            specs.specs.action.dim, encoder.dim, config.channels, step_embedding=config.step_embedding
        )
        super().__init__(specs, encoder, denoiser, config.schedule, loss_on_padding=config.loss_on_padding)
        self.config = config

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.denoiser.film_of_conditioning(conditioning)

    def predict(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        return self.denoiser.denoise(chunk, conditioning + self.denoiser.film_of_step(parameters[:1]))

    def inference_form(self) -> SamplingModule:
        return InferenceForm(self)


class InferenceForm(TableSampling):
    """The trained policy as it is exported; the first of its step parameters counts the steps."""

    denoiser: InferenceUNet

    def __init__(self, policy: DiffusionUNet) -> None:
        super().__init__()
        self.policy_specs, self.sampler = policy.policy_specs, policy.sampler
        self.encoder = policy.encoder
        horizon = policy.policy_specs.horizons.prediction
        self.denoiser = InferenceUNet(policy.denoiser, horizon, policy.steps[:, 0])
        self.register_buffer("steps", counted(policy.steps))

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.denoiser.film_of_conditioning(conditioning)

    def predict(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        return self.denoiser(chunk, parameters[:1].long(), conditioning)

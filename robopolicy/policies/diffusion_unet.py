"""Diffusion policy with a temporal U-Net (Chi et al. 2023), sampled by DDIM.

Predicts the clean chunk rather than the noise by default: in short trainings it does better
(see docs/experiments.md); ``prediction="epsilon"`` is the paper's choice.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.ddim import ddim_steps, ddim_update
from robopolicy.models.observation_encoder import ObservationEncoder
from robopolicy.models.policy_module import PolicyModule, SamplingModule
from robopolicy.models.temporal_unet import TemporalUNet
from robopolicy.models.temporal_unet_inference import InferenceUNet

GROUPS = 8  # of every group norm, as TemporalUNet and VisionEncoder take it
PREDICTIONS = {"sample": "sample", "epsilon": "epsilon", "velocity": "v_prediction"}


@dataclass(frozen=True)
class Config:
    """Network and noise schedule.

    Args:
        channels: of the U-Net's resolutions.
        step_embedding: features of the noise level.
        prediction: what the denoiser predicts: "sample", "epsilon" or "velocity".
        training_steps: noise levels of the DDPM schedule (squared cosine).
        denoising_steps: DDIM steps at inference.
        vision_channels, keypoints, crop: of each camera's encoder.
        state_noise: training noise on normalised states [-].
        loss_on_padding: train also on the held actions after an episode's end.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    step_embedding: int = 64
    prediction: str = "sample"
    training_steps: int = 100
    denoising_steps: int = 10
    vision_channels: tuple[int, ...] = (16, 32, 64, 128)
    keypoints: int = 32
    crop: float = 0.9
    state_noise: float = 0.0
    loss_on_padding: bool = True

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ConfigError(f"prediction {self.prediction!r} is not one of {sorted(PREDICTIONS)}")
        if not 1 <= self.denoising_steps <= self.training_steps:
            raise ConfigError(f"denoising_steps {self.denoising_steps} not in 1..{self.training_steps}")
        for name in ("channels", "vision_channels"):
            given = getattr(self, name)
            if not given or any(c < 1 or c % GROUPS for c in given):
                raise ConfigError(f"{name} must be multiples of {GROUPS} (group norm), got {given}")
        if self.step_embedding < 4 or self.step_embedding % 2:
            raise ConfigError(f"step_embedding must be even and >= 4, got {self.step_embedding}")
        if self.keypoints < 1:
            raise ConfigError(f"keypoints must be >= 1, got {self.keypoints}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop {self.crop} not in (0, 1]")


def build(config: Config, specs: PolicySpecs) -> DiffusionUNet:
    """The untrained module. ConfigError when the prediction horizon cannot be halved often enough."""
    return DiffusionUNet(config, specs)


class DiffusionUNet(PolicyModule):
    """Noise in, chunk out; one candidate's noise is the chunk-shaped start of the DDIM chain."""

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        super().__init__()
        halvings = 2 ** (len(config.channels) - 1)
        if specs.horizons.prediction % halvings:
            raise ConfigError(
                f"prediction horizon {specs.horizons.prediction} must be a multiple of {halvings} "
                f"for {len(config.channels)} U-Net levels"
            )
        self.config = config
        self.policy_specs = dataclasses.replace(specs, noise_shape=specs.chunk_shape, takes_prefix=True)
        self.encoder = ObservationEncoder(
            specs,
            vision_channels=config.vision_channels,
            keypoints=config.keypoints,
            crop=config.crop,
            state_noise=config.state_noise,
        )
        self.denoiser = TemporalUNet(
            specs.specs.action.dim,
            self.encoder.conditioning_dim,
            config.channels,
            step_embedding=config.step_embedding,
        )
        self.schedule = DDIMScheduler(
            num_train_timesteps=config.training_steps,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=PREDICTIONS[config.prediction],
            clip_sample=True,
            set_alpha_to_one=True,
        )
        self.register_buffer("steps", ddim_steps(self.schedule, config.denoising_steps), persistent=False)

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        return self.encoder(observation, generator)

    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        device = action.device
        noise = torch.randn(action.shape, generator=generator, device=device)
        step = torch.randint(self.config.training_steps, (len(action),), generator=generator, device=device)
        predicted = self.denoiser(self.schedule.add_noise(action, noise, step), step, conditioning)
        if self.config.prediction == "sample":
            target = action
        elif self.config.prediction == "epsilon":
            target = noise
        else:
            target = self.schedule.get_velocity(action, noise, step)
        error = (predicted.float() - target).square().mean(-1)
        if self.config.loss_on_padding:
            return error.mean()
        return (error * mask).sum() / mask.sum().clamp(min=1)

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.denoiser.film_of_conditioning(conditioning)

    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        film = conditioning + self.denoiser.film_of_step(parameters[:1])
        return ddim_update(chunk, self.denoiser.denoise(chunk, film), parameters, prefix, prefix_weight)

    def inference_form(self) -> SamplingModule:
        return InferenceForm(self)


class InferenceForm(SamplingModule):
    """The trained policy as it is exported; the first of its step parameters counts the steps."""

    def __init__(self, policy: DiffusionUNet) -> None:
        super().__init__()
        self.policy_specs = policy.policy_specs
        self.encoder = policy.encoder
        horizon = policy.policy_specs.horizons.prediction
        self.denoiser = InferenceUNet(policy.denoiser, horizon, policy.steps[:, 0])
        count = torch.arange(len(policy.steps), dtype=policy.steps.dtype)
        self.register_buffer("steps", torch.cat([count[:, None], policy.steps[:, 1:]], dim=1))

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        return self.encoder(observation, generator)

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.denoiser.film_of_conditioning(conditioning)

    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        predicted = self.denoiser(chunk, parameters[:1].long(), conditioning)
        return ddim_update(chunk, predicted, parameters, prefix, prefix_weight)

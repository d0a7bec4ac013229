"""Diffusion policy with a transformer (Chi et al. 2023) that attends to the observation history.

The noise level and the observations also modulate every norm (Peebles and Xie 2023), which trained better
in equal time than a noise level that is added to the tokens (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from robopolicy.core.specs import PolicySpecs
from robopolicy.models.diffusion_module import DiffusionModule, TableSampling, counted
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.models.observation_tokens import ObservationTokens
from robopolicy.models.options import check_dropout, check_transformer
from robopolicy.models.policy_module import SamplingModule
from robopolicy.models.transformer import TransformerDenoiser
from robopolicy.models.transformer_inference import InferenceTransformer


@dataclass(frozen=True)
class Config:
    """Network and noise schedule.

    Args:
        dim: features of a token.
        layers, heads: of the transformer.
        dropout: of what each part of a layer adds.
        loss_on_padding: train also on the held actions outside an episode.
    Raises:
        ConfigError: names the field.
    """

    dim: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    loss_on_padding: bool = True

    def __post_init__(self) -> None:
        check_transformer(self)
        check_dropout(self)


def build(config: Config, specs: PolicySpecs) -> DiffusionTransformer:
    """The untrained module."""
    return DiffusionTransformer(config, specs)


class DiffusionTransformer(DiffusionModule):
    denoiser: TransformerDenoiser

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        encoder = ObservationTokens(specs, config.observation, config.dim)
        denoiser = TransformerDenoiser(
            specs.specs.action.dim,
            specs.horizons.prediction,
            encoder.count,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
        )
        super().__init__(specs, encoder, denoiser, config.schedule, loss_on_padding=config.loss_on_padding)
        self.config = config

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.denoiser.look_up(conditioning)

    def predict(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        share = self.denoiser.modulation_of_level(parameters[:1])
        return self.denoiser.denoise(chunk, share, conditioning)

    def inference_form(self) -> SamplingModule:
        return InferenceForm(self)


class InferenceForm(TableSampling):
    """The trained policy as it is exported; the first of its step parameters counts the steps."""

    denoiser: InferenceTransformer

    def __init__(self, policy: DiffusionTransformer) -> None:
        super().__init__()
        self.policy_specs, self.sampler = policy.policy_specs, policy.sampler
        self.encoder = policy.encoder
        self.denoiser = InferenceTransformer(policy.denoiser, policy.steps[:, 0])
        self.register_buffer("steps", counted(policy.steps))

    def prepare(self, conditioning: Tensor) -> Tensor:
        return self.denoiser.look_up(conditioning)

    def predict(self, chunk: Tensor, conditioning: Tensor, parameters: Tensor) -> Tensor:
        return self.denoiser(chunk, parameters[:1].long(), conditioning)

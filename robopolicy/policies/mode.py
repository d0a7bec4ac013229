"""MoDE: mixture of denoising experts, routed by noise level (Reuss et al. 2024)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.ddim import ddim_update
from robopolicy.models.diffusion_module import masked_mean
from robopolicy.models.edm import EdmConfig, draw_sigma, edm_rows, training_pair
from robopolicy.models.experts import balance_loss, expert_usage, mean_over_processes, name_usage
from robopolicy.models.mode_inference import CachedTransformer
from robopolicy.models.mode_transformer import ModeTransformer
from robopolicy.models.observation_encoder import ObservationConfig
from robopolicy.models.observation_tokens import ObservationTokens
from robopolicy.models.options import check_experts, check_not_negative, check_transformer
from robopolicy.models.policy_module import PolicyModule, SamplingModule

BALANCING = ("loss", "bias")


@dataclass(frozen=True)
class Config:
    """Network, routing and noise levels.

    Args:
        dim, layers, heads: of the transformer.
        experts: of each layer.
        active_experts: those a noise level goes to in each layer.
        expert_hidden: units of each expert.
        balancing: "loss" adds ``balance_weight`` times the balance loss and draws experts in training;
            "bias" always takes the best and moves a selection bias by ``bias_rate`` a step instead.
        loss_on_padding: train also on the held actions outside an episode.
    Raises:
        ConfigError: names the field.
    """

    dim: int = 128
    layers: int = 4
    heads: int = 4
    experts: int = 4
    active_experts: int = 2
    expert_hidden: int = 256
    balancing: str = "loss"
    balance_weight: float = 0.01
    bias_rate: float = 0.001
    schedule: EdmConfig = field(default_factory=EdmConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    loss_on_padding: bool = True

    def __post_init__(self) -> None:
        if self.balancing not in BALANCING:
            raise ConfigError(f"balancing {self.balancing!r} is not one of {BALANCING}")
        check_transformer(self)
        check_experts(self)
        check_not_negative(self, "balance_weight", "bias_rate")


def build(config: Config, specs: PolicySpecs) -> MixtureOfDenoisingExperts:
    """The untrained module."""
    return MixtureOfDenoisingExperts(config, specs)


class MixtureOfDenoisingExperts(PolicyModule):
    """Conditioning is tokens, (batch, count, dim); one candidate's noise is the chunk-shaped start."""

    def __init__(self, config: Config, specs: PolicySpecs) -> None:
        super().__init__()
        self.config = config
        self.policy_specs = dataclasses.replace(specs, noise_shape=specs.chunk_shape, takes_prefix=True)
        self.encoder = ObservationTokens(specs, config.observation, config.dim)
        self.denoiser = ModeTransformer(
            specs.specs.action.dim,
            specs.horizons.prediction,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            num_experts=config.experts,
            hidden=config.expert_hidden,
            k=config.active_experts,
            bias=config.balancing == "bias",
        )
        self.register_buffer("steps", edm_rows(config.schedule), persistent=False)
        self._logged: dict[str, Tensor] = {}
        self._usage = torch.zeros(config.layers, config.experts)
        self._moved_by: Tensor | None = None  # usage since the bias was moved

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        return self.encoder(observation, generator)

    def loss(self, conditioning: Tensor, action: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """EDM's loss, weighted so that it is the plain error of the network's output, and the balance's.

        In training mode routes are drawn, unless there is a bias, which ``after_step`` then moves.
        """
        sigma = draw_sigma(self.config.schedule, len(action), generator)
        epsilon = torch.randn(action.shape, generator=generator, device=action.device)
        chunk, target = training_pair(action, epsilon, sigma, self.config.schedule.sigma_data)
        noise_token = self.denoiser.noise_token(sigma)
        routes = self.denoiser.routes(noise_token, generator if self.training else None)
        predicted = self.denoiser(chunk, conditioning, noise_token, routes)
        error = (predicted.float() - target).square().mean(-1)
        denoising = masked_mean(error, None if self.config.loss_on_padding else mask)
        usage = torch.stack([expert_usage(route.index, self.config.experts) for route in routes])
        usage = mean_over_processes(usage) if self.training else usage
        each = [balance_loss(route.probabilities, own) for route, own in zip(routes, usage)]
        balance = torch.stack(each).mean()
        self._logged = {"denoising": denoising.detach(), "balance": balance.detach()}
        self._usage = usage
        if self.config.balancing == "loss":
            return denoising + self.config.balance_weight * balance
        if self.training:
            self._moved_by = self._usage if self._moved_by is None else self._moved_by + self._usage
        return denoising

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the biases by the usage in all parts of the batch, on all processes, since the last step."""
        if self._moved_by is None:
            return
        for block, usage in zip(self.denoiser.blocks, self._moved_by):
            block.router.update_bias(usage, self.config.bias_rate)
        self._moved_by = None

    def metrics(self) -> dict[str, float]:
        """Of the last loss: its denoising part, balance (1 is even), and each layer's share per expert."""
        return {name: value.item() for name, value in self._logged.items()} | name_usage(self._usage)

    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        noise_token = self.denoiser.noise_token(parameters[9:])
        routes = self.denoiser.routes(noise_token)
        predicted = self.denoiser(parameters[8] * chunk, conditioning, noise_token, routes)
        return ddim_update(chunk, predicted, parameters[:8], prefix, prefix_weight)

    def inference_form(self) -> SamplingModule:
        return InferenceForm(self)


class InferenceForm(SamplingModule):
    """Without routers: the experts of every (layer, step) are known, see ``CachedTransformer``."""

    def __init__(self, policy: MixtureOfDenoisingExperts) -> None:
        super().__init__()
        self.policy_specs = policy.policy_specs
        self.encoder = policy.encoder
        self.denoiser = CachedTransformer(policy.denoiser, policy.steps[:, 9])
        self.register_buffer("steps", policy.steps[:, :9].clone())

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        return self.encoder(observation, generator)

    def denoise(
        self,
        chunk: Tensor,
        conditioning: Tensor,
        parameters: Tensor,
        prefix: Tensor | None = None,
        prefix_weight: Tensor | None = None,
    ) -> Tensor:
        predicted = self.denoiser(parameters[8] * chunk, conditioning, parameters[:1].long())
        return ddim_update(chunk, predicted, parameters[:8], prefix, prefix_weight)

"""Continuous noise levels and a preconditioned denoiser: EDM (Karras et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError


@dataclass(frozen=True)
class EdmConfig:
    """noisy = clean + sigma * epsilon, with sigma from ``sigma_min`` to ``sigma_max``.

    Args:
        sigma_data: assumed spread of normalised actions [-].
        sigma_min, sigma_max: of training and of inference, which goes from one to the other.
        density_scale: of ln sigma in training, logistic around ln ``sigma_data`` (log-logistic sigma).
        denoising_steps: inference iterations, evenly spaced in ln sigma, then to 0.
    Raises:
        ConfigError: names the field.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.001
    sigma_max: float = 80.0
    density_scale: float = 0.5
    denoising_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("sigma_data", "sigma_min", "density_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not self.sigma_min < self.sigma_max < math.inf:
            raise ConfigError(
                f"sigma_max must be finite and above sigma_min {self.sigma_min}, got {self.sigma_max}"
            )
        if self.denoising_steps < 1:
            raise ConfigError(f"denoising_steps must be >= 1, got {self.denoising_steps}")


def draw_sigma(config: EdmConfig, count: int, generator: torch.Generator) -> Tensor:
    """(count,) noise levels to train on: log-logistic, cut to the range (inverse of its distribution)."""
    centre, scale = math.log(config.sigma_data), config.density_scale
    low, high = (1 / (1 + math.exp((centre - math.log(s)) / scale)) for s in _range(config))
    share = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
    ln_sigma = torch.logit(low + (high - low) * share) * scale + centre
    return ln_sigma.exp().clamp(config.sigma_min, config.sigma_max).float()


def preconditioning(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in of sigma's shape: clean = c_skip * noisy + c_out * network(c_in * noisy).

    Network inputs and targets then have unit variance at every sigma, and the loss on the network's output
    is evenly weighted. Source: Karras et al. 2022, table 1.
    """
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt()


def training_pair(clean: Tensor, epsilon: Tensor, sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """What the network gets and what it should give, for chunks (batch, ...) at sigmas (batch,)."""
    sigma = sigma.reshape(-1, *[1] * (clean.ndim - 1))
    c_skip, c_out, c_in = preconditioning(sigma, sigma_data)
    noisy = clean + sigma * epsilon
    return c_in * noisy, (clean - c_skip * noisy) / c_out


def inference_sigmas(config: EdmConfig) -> Tensor:
    """(denoising_steps,) float64, evenly spaced in ln sigma, the largest first."""
    low, high = _range(config)
    if config.denoising_steps == 1:
        return torch.tensor([high], dtype=torch.float64)
    return torch.linspace(math.log(high), math.log(low), config.denoising_steps, dtype=torch.float64).exp()


def edm_rows(config: EdmConfig) -> Tensor:
    """(denoising_steps, 10): step, a ... g as ``ddim.ddim_update`` uses them, network input's scale, sigma.

    The chunk that goes round is z = signal * clean + noise * epsilon with noise / signal = sigma, kept at
    unit size: it starts as epsilon alone, so that signal is 1 / sigma there and 1 / sqrt(1 + sigma^2) later.
    In it the network's input is scale * z, the clean chunk a*z + b*out, and the deterministic step of DDIM,
    x' = clean + sigma' / sigma * (x - clean), ``ddim_update``.
    """
    sigmas = inference_sigmas(config)
    c_skip, c_out, c_in = preconditioning(sigmas, config.sigma_data)
    signal = 1 / (1 + sigmas**2).sqrt()
    signal[0] = 1 / sigmas[0]
    noise = signal * sigmas
    a, b = c_skip / signal, c_out
    c, d = (1 - signal * a) / noise, -signal * b / noise
    e = torch.cat([signal[1:], torch.ones(1)])
    f = torch.cat([noise[1:], torch.zeros(1)])
    step = torch.arange(len(sigmas))
    return torch.stack([step, a, b, c, d, e, f, f / sigmas, c_in / signal, sigmas], dim=1).float()


def _range(config: EdmConfig) -> tuple[float, float]:
    return config.sigma_min, config.sigma_max

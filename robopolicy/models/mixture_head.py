"""A mixture of Gaussians over whole action chunks: density, components' shares, seeded sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Mixture:
    """Of ``components`` Gaussians with independent numbers.

    Args:
        logits: (rows, components) of the mixing weights.
        mean, std: (rows, components, horizon, action_dim).
    """

    logits: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def of_features(
        cls, features: Tensor, components: int, chunk_shape: tuple[int, int], min_std: float
    ) -> Mixture:
        """From a network's ``num_features`` outputs; softplus keeps deviations above ``min_std``."""
        logits, rest = features.float().split([components, features.shape[-1] - components], dim=-1)
        mean, raw = rest.unflatten(-1, (2, components, *chunk_shape)).unbind(1)
        return cls(logits, mean, functional.softplus(raw) + min_std)

    def log_densities(self, chunk: Tensor, weight: Tensor) -> Tensor:
        """(rows, components): of chunks (rows, horizon, action_dim), steps weighed by (rows, horizon)."""
        standard = (chunk[:, None] - self.mean) / self.std
        each = -0.5 * standard.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return (each.sum(-1) * weight[:, None]).sum(-1)


def num_features(components: int, chunk_shape: tuple[int, int]) -> int:
    """That a ``Mixture`` takes from a network."""
    return components * (1 + 2 * math.prod(chunk_shape))


def pick(mixing: Tensor, normal: Tensor) -> Tensor:
    """Which component each row takes, by inversion: (rows, components) weights that sum to 1 -> one-hot.

    Args:
        normal: (rows,) standard normal; its distribution function makes it uniform.
    """
    uniform = 0.5 * (1 + torch.erf(normal / math.sqrt(2)))
    index = (uniform[:, None] > mixing.cumsum(-1)[:, :-1]).sum(-1)
    return one_hot(index, mixing)


def one_hot(index: Tensor, like: Tensor) -> Tensor:
    """(rows,) -> (rows, components) of the type of ``like``."""
    return (index[:, None] == torch.arange(like.shape[-1], device=like.device)).to(like.dtype)

"""Chunks that the data do not have, for objectives that must not overrate them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError
from robopolicy.datasets.transitions import TransitionBatch


@dataclass(frozen=True)
class UnseenConfig:
    """Which chunks are asked about.

    Args:
        uniform: chunks drawn anywhere in the normalised range, where no policy gives any.
        policy: of a policy's chunks at the window, and as many of those at the next one. Without a policy:
            noisy copies of the data's own, and as many chunks of other windows.
        noise: standard deviation, in normalised units, of a copy's offset and of how far it has drifted to
            either side at its ends. White noise would be told from motion by its roughness alone.
        unseen_rows: of each batch, for which it is asked: most of the work is here; 0 takes all.
    Raises:
        ConfigError: names the field.
    """

    uniform: int = 4
    policy: int = 4
    noise: float = 0.1
    unseen_rows: int = 64

    def __post_init__(self) -> None:
        for name in ("uniform", "policy", "unseen_rows"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not self.uniform and not self.policy:
            raise ConfigError("uniform and policy must not both be 0: nothing would be asked about")
        if not self.noise > 0:
            raise ConfigError(f"noise must be positive, got {self.noise}")


@dataclass(frozen=True)
class Unseen:
    """(batch, m, prediction_horizon, action_dim) normalised.

    Args:
        likely: what the policy, or the demonstrator with a trembling hand, would do here.
        other: anything else.
    """

    likely: Tensor
    other: Tensor


def draw_unseen(config: UnseenConfig, batch: TransitionBatch, generator: torch.Generator) -> Unseen:
    """As many chunks as ``config`` says; of a policy's pool, random ones."""
    data, count = batch.action, config.policy
    shape = (len(data), config.uniform, *data.shape[1:])
    uniform = torch.rand(shape, generator=generator, device=data.device) * 2 - 1
    if batch.policy_chunks is None:
        copies = data[:, None] + config.noise * _smooth((len(data), count, *data.shape[1:]), data, generator)
        return Unseen(copies, torch.cat([uniform, _others(data, count, generator)], 1))
    likely = [_some(batch.policy_chunks, count, generator)]
    if batch.next_policy_chunks is not None:
        likely.append(_some(batch.next_policy_chunks, count, generator))
    return Unseen(torch.cat(likely, 1), uniform)


def _smooth(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """(batch, m, prediction_horizon, action_dim): of each chunk and dimension one offset and one drift."""
    ends = (*shape[:2], 1, shape[-1])
    offset, drift = (torch.randn(ends, generator=generator, device=like.device) for _ in range(2))
    return offset + drift * torch.linspace(-1, 1, shape[2], device=like.device)[:, None]


def _some(chunks: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The same random columns of every row."""
    order = torch.randperm(chunks.shape[1], generator=generator, device=chunks.device)
    return chunks[:, order[:count]]


def _others(data: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """For each row, the chunks of ``count`` random rows of the batch."""
    rows = torch.randint(len(data), (len(data), count), generator=generator, device=data.device)
    return data[rows]

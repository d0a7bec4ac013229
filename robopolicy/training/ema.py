"""Exponential moving average of weights, warmed up so that early averages forget the start."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Average of a module's parameters.

    decay(step) = min(max_decay, 1 - (1 + step) ** -power), the warm-up of Karras' and
    Chi et al.'s trainings.
    """

    def __init__(self, module: nn.Module, *, power: float = 0.75, max_decay: float = 0.9999) -> None:
        self.power = power
        self.max_decay = max_decay
        self.step = 0
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present weights."""
        self.step += 1
        decay = min(self.max_decay, 1 - (1 + self.step) ** -self.power)
        average, current = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                average.append(self.weights[name])
                current.append(value.detach())
            else:
                self.weights[name].copy_(value)
        torch._foreach_lerp_(average, current, 1 - decay)

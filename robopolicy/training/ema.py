"""Exponential moving average of weights, warmed up so that early averages forget the start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
        self._places = dict(_places(module))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights."""
        self.step += 1
        decay = min(self.max_decay, 1 - (1 + self.step) ** -self.power)
        average, current = [], []
        for name, weight in self.weights.items():
            value = self._value(name)
            if weight.is_floating_point():
                average.append(weight)
                current.append(value)
            else:
                weight.copy_(value)
        torch._foreach_lerp_(average, current, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the module computes with the averaged weights; nothing is copied."""
        names = list(self.weights)
        self._swap(names)
        try:
            yield
        finally:
            self._swap(names[::-1])  # a tensor with two names gets its own weights back

    def _swap(self, names: list[str]) -> None:
        for name in names:
            value = self._value(name)
            self.weights[name], value.data = value.data, self.weights[name]

    def _value(self, name: str) -> Tensor:
        owner, attribute = self._places[name]
        return owner[attribute]

    def state(self) -> dict[str, Any]:
        """What ``restore`` takes."""
        return {"step": self.step, "weights": self.weights}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``; ValueError where its names differ from the module's."""
        if set(state["weights"]) != set(self.weights):
            raise ValueError(
                f"averages of other weights: {sorted(set(state['weights']) ^ set(self.weights))}"
            )
        self.step = state["step"]
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)


def _places(module: nn.Module) -> Iterator[tuple[str, tuple[dict[str, Tensor], str]]]:
    """Where each entry of ``state_dict`` lies: collecting that anew takes longer than averaging it."""
    for path, part in module.named_modules(remove_duplicate=False):
        before = f"{path}." if path else ""
        own = [(part._parameters, name) for name in part._parameters]
        own += [
            (part._buffers, name) for name in part._buffers if name not in part._non_persistent_buffers_set
        ]
        for owner, name in own:
            yield before + name, (owner, name)  # type: ignore[misc]

"""Routers that look at nothing but the task: one per task and layer, and what makes them differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Logit of an expert that a task does not know; no gradient, and a probability of exactly 0.
HIDDEN = float("-inf")


class TaskRouters(nn.Module):
    """Logits of every task over the experts of every layer; the best ``active`` are used.

    Each task's logits are a parameter of their own, over the experts that there were when it was added:
    experts added later are hidden from it, and other tasks can be frozen one by one.

    Args:
        layers: that have experts.
        visible: of each task, how many experts of a layer it knows, the first ones.
        active: experts that a row goes to in each layer.
        noise: scale of the Gumbel noise on logits in training, which tries other experts.
    """

    def __init__(self, layers: int, visible: Sequence[int], active: int, *, noise: float = 0.0) -> None:
        super().__init__()
        self.experts, self.active, self.noise = max(visible), active, noise
        self.logits = nn.ParameterList(nn.Parameter(torch.randn(layers, count)) for count in visible)

    def table(self) -> Tensor:
        """(tasks, layers, experts) logits; those of unknown experts are -inf."""
        rows = [functional.pad(x, (0, self.experts - x.shape[1]), value=HIDDEN) for x in self.logits]
        return torch.stack(rows)

    def routes(self) -> Tensor:
        """(tasks, layers, experts) weights of inference: ``active`` of them positive, their sum 1."""
        return self._weights(self.table(), None)

    def forward(self, task: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One-hot tasks (rows, tasks) to weights (rows, layers, experts).

        Args:
            generator: means training: every row draws its experts (the best by logits and Gumbel noise).
        """
        if generator is None or self.noise == 0:
            return torch.einsum("rt,tle->rle", task, self.routes())
        return self._weights(self.table()[task.argmax(-1)], generator)

    def _weights(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        ranked = logits
        if generator is not None:
            uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
            ranked = logits - self.noise * (-uniform.clamp(1e-9, 1 - 1e-7).log()).log()
        index = ranked.topk(self.active, dim=-1).indices
        weight = logits.gather(-1, index).softmax(-1)
        return torch.zeros_like(logits).scatter(-1, index, weight)

    def probabilities(self) -> Tensor:
        """(tasks, layers, experts) softmax over all experts that a task knows."""
        return self.table().softmax(-1)


def mutual_information(probabilities: Tensor) -> Tensor:
    """I(task; expert) = sum_t p(t) sum_e p(e|t) log(p(e|t) / p(e)) [nats], mean over layers; scalar.

    Large when each task is sure of its experts and the tasks together use all of them.

    Args:
        probabilities: (tasks, layers, experts) p(e|t); tasks count alike, however many rows they have.
    Source: Mod-Squad (Chen et al. 2023), eq. 5, as used by Sparse Diffusion Policy (Wang et al. 2024), eq. 3.
    """
    tiny = torch.finfo(probabilities.dtype).tiny
    joint = probabilities.mean(0, keepdim=True)
    ratio = probabilities.clamp(min=tiny).log() - joint.clamp(min=tiny).log()
    return (probabilities * ratio).sum(-1).mean()

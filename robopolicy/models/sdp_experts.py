"""Experts that come in stages: what a stage learnt stays frozen when the next one is added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.models.experts import Experts

ACTIVATION = "gelu"


class StagedExperts(nn.Module):
    """y = sum over experts of weight * expert(x), for all tokens of a row alike; only weights > 0 are paid.

    Args:
        stages: how many experts each stage brings; expert numbers go through all stages.
        hidden: units of each expert.
    """

    def __init__(self, stages: Sequence[int], dim: int, hidden: int) -> None:
        super().__init__()
        made = (Experts(count, dim, hidden, activation=ACTIVATION) for count in stages if count)
        self.stages = nn.ModuleList(made)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """(rows, tokens, dim) and (rows, experts) -> (rows, tokens, dim): one product per expert in use."""
        if torch.compiler.is_exporting():  # of samplers that are exported whole, as they are trained
            return PresentExperts(self)(x, weight)
        row, expert = weight.nonzero(as_tuple=True)
        order = expert.argsort(stable=True)
        row, expert = row[order], expert[order]
        counts = torch.bincount(expert, minlength=weight.shape[1]).tolist()
        parts = x.index_select(0, row).split(counts)
        found = torch.cat([self._one(i, part) for i, part in enumerate(parts) if len(part)])
        scaled = (found * weight[row, expert][:, None, None]).to(x.dtype)
        return torch.zeros_like(x).index_add(0, row, scaled)

    def _one(self, expert: int, x: Tensor) -> Tensor:
        for stage in self.stages:
            assert isinstance(stage, Experts)
            if expert < stage.num_experts:
                return functional.linear(stage.hidden_units(x, stage.inward[expert]), stage.outward[expert])
            expert -= stage.num_experts
        raise AssertionError("more weights than experts")


class PresentExperts(nn.Module):
    """The same function for inference engines: experts that no row goes to are never multiplied.

    The weights of the experts in use are gathered and laid side by side as one wide feed-forward part, whose
    hidden units are scaled by each row's route. Candidates of one task thus cost what a dense part of the
    active size costs, and a gather; rows of several tasks cost the union of their experts.
    """

    def __init__(self, experts: StagedExperts) -> None:
        super().__init__()
        stages = [stage for stage in experts.stages if isinstance(stage, Experts)]
        inward = torch.cat([stage.inward.detach() for stage in stages])  # (experts, hidden, dim)
        outward = torch.cat([stage.outward.detach() for stage in stages])  # (experts, dim, hidden)
        self.register_buffer("inward", inward.permute(2, 0, 1).contiguous())
        self.register_buffer("outward", outward.transpose(1, 2).contiguous())

    inward: Tensor
    outward: Tensor

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        present = (weight.amax(0) > 0).nonzero().flatten()
        inward = self.inward.index_select(1, present).flatten(1)
        outward = self.outward.index_select(0, present).flatten(0, 1)
        scale = weight.index_select(1, present)[:, None, :, None]
        hidden = functional.gelu(x @ inward).unflatten(-1, (-1, self.outward.shape[1])) * scale
        return hidden.flatten(2) @ outward


class FusedExperts(nn.Module):
    """The same function where there is one route: a dense feed-forward part of the active size."""

    def __init__(self, experts: StagedExperts, weight: Tensor) -> None:
        super().__init__()
        whole, chosen = PresentExperts(experts), weight.nonzero().flatten()
        scaled = whole.outward[chosen] * weight[chosen, None, None]
        self.register_buffer("inward", whole.inward[:, chosen].flatten(1))
        self.register_buffer("outward", scaled.flatten(0, 1))

    inward: Tensor
    outward: Tensor

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return functional.gelu(x @ self.inward) @ self.outward

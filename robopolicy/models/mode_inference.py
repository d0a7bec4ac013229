"""A trained ``ModeTransformer`` for the steps of one sampler: expert caching.

The route depends on the noise level alone, so the experts of every (layer, step) are known beforehand:
routers and noise embedding go, and the experts of a step become one dense layer k times as wide; see
``docs/derivations.md``. Everything is keyed on the integer step. Activations are (rows * tokens, features)
and every product is with a matrix that is constant, or chosen from a bank by the step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.models.experts import Experts
from robopolicy.models.mode_transformer import ModeTransformer, RoutedBlock
from robopolicy.models.routing import Route
from robopolicy.models.transformer import SelfAttention


class CachedExperts(nn.Module):
    """The experts of each step side by side, as one SwiGLU layer; each set of experts is kept once.

    Gate and value are products of their own: in one product their activations are twice as large, which
    ONNX Runtime was slow at (docs/experiments.md).

    Args:
        route: of the steps: a row each.
    """

    def __init__(self, experts: Experts, route: Route) -> None:
        super().__init__()
        assert experts.activation == "swiglu"
        index, order = route.index.sort(1)  # (1, 3) and (3, 1) are one set
        sets, set_of_step = index.unique(dim=0, return_inverse=True)
        self.sets: list[int] = set_of_step.tolist()
        self.register_buffer("set_of_step", set_of_step)
        for name, part in zip(("gate", "value"), experts.inward.detach().chunk(2, 1)):
            self.register_buffer(name, part[sets].flatten(1, 2).mT.contiguous())
        self.register_buffer("outward", experts.outward.detach()[sets].mT.flatten(1, 2).contiguous())
        weight = route.weight.gather(1, order).repeat_interleave(experts.hidden, 1)
        self.register_buffer("weight", None if (weight == 1).all() else weight)

    def forward(self, x: Tensor, step: Tensor | int) -> Tensor:
        """(rows * tokens, dim) -> (rows * tokens, dim)."""
        chosen = self.sets[step] if isinstance(step, int) else at(self.set_of_step, step)[None]

        def of_set(bank: Tensor) -> Tensor:
            return bank[0] if len(bank) == 1 else at(bank, chosen)

        # in place: the largest activations there are, and nothing is differentiated here
        hidden = functional.silu(x @ of_set(self.gate)).mul_(x @ of_set(self.value))
        if self.weight is not None:
            hidden.mul_(at(self.weight, step))
        return hidden @ of_set(self.outward)


class StepwiseAttention(nn.Module):
    """Self-attention to whose normalised input a constant of each step is added: a bias of the projections.

    Args:
        noise_tokens: (steps, dim), the constants.
    """

    def __init__(self, attention: SelfAttention, noise_tokens: Tensor) -> None:
        super().__init__()
        self.heads = attention.heads
        layer, dim = attention.query_key_value, noise_tokens.shape[1]
        scale = torch.ones(3 * dim, device=noise_tokens.device)
        scale[:dim] = 1 / math.sqrt(dim // self.heads)  # of the products of queries and keys
        self.register_buffer("matrix", (layer.weight.detach() * scale[:, None]).T.contiguous())
        self.register_buffer("bias", layer(noise_tokens).detach() * scale)
        self.output = attention.output

    def forward(self, x: Tensor, tokens: int, step: Tensor | int) -> Tensor:
        """(rows * tokens, dim) -> (rows * tokens, dim)."""
        projected = torch.addmm(at(self.bias, step), x, self.matrix)
        split = projected.reshape(-1, tokens, 3 * self.heads, x.shape[1] // self.heads).transpose(1, 2)
        query, key, value = split.split(self.heads, dim=1)
        found = (query @ key.mT).softmax(-1) @ value
        return self.output(found.transpose(1, 2).reshape(-1, x.shape[1]))


class CachedBlock(nn.Module):
    """``RoutedBlock``."""

    def __init__(self, block: RoutedBlock, noise_tokens: Tensor, route: Route) -> None:
        super().__init__()
        self.norms = block.norms
        self.attention = StepwiseAttention(block.attention, noise_tokens)
        self.experts = CachedExperts(block.experts, route)

    def forward(self, x: Tensor, tokens: int, step: Tensor | int) -> Tensor:
        x = x + self.attention(self.norms[0](x), tokens, step)
        return x + self.experts(self.norms[1](x), step)


class CachedTransformer(nn.Module):
    """``ModeTransformer`` at known noise levels.

    Args:
        network: whose weights are taken.
        sigmas: (denoising_steps,); ``step`` counts them.
    """

    def __init__(self, network: ModeTransformer, sigmas: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            noise_tokens = network.noise_token(sigmas)
            routes = network.routes(noise_tokens)
            self.blocks = nn.ModuleList(
                CachedBlock(block, noise_tokens, route) for block, route in zip(network.blocks, routes)
            )
        self.register_buffer("noise_tokens", noise_tokens)
        self.horizon, self.position = network.horizon, network.position
        self.embed_action, self.head = network.embed_action, network.head

    def forward(self, chunk: Tensor, conditioning: Tensor, step: Tensor) -> Tensor:
        """As ``ModeTransformer.forward``, at ``step``, (1,) int64."""
        known = step if torch.compiler.is_exporting() else int(step)
        actions = self.embed_action(chunk) + self.position
        first = at(self.noise_tokens, known).expand(chunk.shape[0], 1, -1)
        x = torch.cat([first, conditioning, actions], dim=1)
        tokens, dim = x.shape[1:]
        x = x.reshape(-1, dim)
        for block in self.blocks:
            x = block(x, tokens, known)
        return self.head(x.reshape(-1, tokens, dim)[:, -self.horizon :])


def at(table: Tensor, step: Tensor | int) -> Tensor:
    """Row of a table, by a number or by a tensor of one, which stays in an exported graph."""
    return table[step] if isinstance(step, int) else table.index_select(0, step)[0]

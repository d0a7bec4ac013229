"""A trained ``TransformerDenoiser`` laid out for inference engines: the same weights, other operators.

What depends on the noise level alone is a table; a linear layer is one product over all rows and tokens at
once, which engines run with its bias as one operator; attention is written out, scaled within the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robopolicy.models.transformer import SelfAttention, TransformerDenoiser


class TokenProduct(nn.Module):
    """A linear layer on tokens: (rows, tokens, features) -> (rows, tokens, features)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1]))


class InferenceAttention(nn.Module):
    """``SelfAttention``."""

    def __init__(self, trained: SelfAttention) -> None:
        super().__init__()
        self.heads = trained.heads
        dim = trained.output.in_features
        inputs = copy.deepcopy(trained.query_key_value)
        with torch.no_grad():
            for parameter in (inputs.weight, inputs.bias):
                parameter[:dim] *= (dim // self.heads) ** -0.5
        self.inputs, self.output = TokenProduct(inputs), TokenProduct(copy.deepcopy(trained.output))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inputs(x).split(x.shape[-1], dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        weight = (query.transpose(1, 2) @ key.permute(0, 2, 3, 1)).softmax(dim=-1)
        return self.output((weight @ value.transpose(1, 2)).transpose(1, 2).flatten(2))


class InferenceTransformer(nn.Module):
    """``TransformerDenoiser`` for the noise levels of one sampler.

    Args:
        network: whose weights are copied.
        levels: (denoising_steps,) noise levels; ``step`` counts them.
    """

    modulation_of_step: Tensor

    def __init__(self, network: TransformerDenoiser, levels: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            self.register_buffer("modulation_of_step", network.modulation_of_level(levels))
        self.network = copy.deepcopy(network)
        for block in self.network.blocks:
            block.self_attention = InferenceAttention(block.self_attention)
            _on_tokens(block.feed_forward)
        _on_tokens(self.network.head)
        self.network.embed_action = TokenProduct(self.network.embed_action)

    def look_up(self, conditioning: Tensor) -> Tensor:
        """As ``TransformerDenoiser.look_up``."""
        return self.network.look_up(conditioning)

    def forward(
        self,
        chunk: Tensor,
        step: Tensor,
        found: Tensor,
        routes: Sequence[tuple[Tensor, ...]] | None = None,
    ) -> Tensor:
        """The prediction, (rows, horizon, action_dim).

        Args:
            chunk: (rows, horizon, action_dim).
            step: (1,) int64, counted from the first denoising step.
            found: of ``look_up``.
            routes: see ``TransformerDenoiser.forward``.
        """
        return self.network.denoise(chunk, self.modulation_of_step.index_select(0, step), found, routes)


def _on_tokens(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, TokenProduct(child))

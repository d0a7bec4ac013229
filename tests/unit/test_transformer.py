"""The transformer is the textbook's, looks at everything it is given, and treats rows apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robopolicy.core.errors import ConfigError
from robopolicy.models.transformer import (
    Block,
    CrossAttention,
    FeedForward,
    SelfAttention,
    TransformerDenoiser,
)
from robopolicy.models.transformer_inference import InferenceTransformer
from robopolicy.policies.diffusion_transformer import Config

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(module: nn.Module) -> nn.Module:
    """In double precision, with weights such that no layer that starts at zero hides an error."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.double().parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return module.eval()


def make(layers: int = 2, **options) -> TransformerDenoiser:
    torch.manual_seed(0)
    return shaken(TransformerDenoiser(3, 8, 2, dim=16, layers=layers, heads=4, **options))


def chunk_level_tokens(rows: int = 4):
    return random(rows, 8, 3), torch.arange(rows), random(rows, 2, 16, seed=2)


def torchs_attention(query, key, value, output) -> nn.MultiheadAttention:
    """torch's own with the same weights: (features, biases) of each projection."""
    reference = nn.MultiheadAttention(16, 4, batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([query[0], key[0], value[0]]))
        reference.in_proj_bias.copy_(torch.cat([query[1], key[1], value[1]]))
        reference.out_proj.weight.copy_(output.weight)
        reference.out_proj.bias.copy_(output.bias)
    return reference


def test_self_attention_is_torchs():
    layer, x = shaken(SelfAttention(16, 4)), random(3, 8, 16)
    parts = zip(layer.query_key_value.weight.chunk(3), layer.query_key_value.bias.chunk(3))
    reference = torchs_attention(*parts, layer.output)
    torch.testing.assert_close(layer(x), reference(x, x, x)[0])


@pytest.mark.parametrize("tokens", [1, 2, 5, 20])
def test_cross_attention_in_the_other_order_is_torchs(tokens):
    layer, x, memory = shaken(CrossAttention(16, 4)), random(3, 8, 16), random(3, tokens, 16, seed=2)
    none = torch.zeros(16, dtype=torch.float64)
    value = (layer.value.weight, layer.value.bias)
    reference = torchs_attention((layer.query.weight, none), (layer.key.weight, none), value, layer.output)
    torch.testing.assert_close(layer(x, *layer.look_up(memory)), reference(x, memory, memory)[0])


def neutral() -> torch.Tensor:
    """Scale 1, shift 0 and gate 1 of each part, for three rows."""
    return torch.tensor([1.0, 0.0, 1.0] * 3, dtype=torch.float64)[None, :, None, None].repeat(3, 1, 1, 16)


def test_a_block_adds_each_part_and_hands_the_route_on():
    class Routed(nn.Module):
        def forward(self, x, index, weight):
            return (index * weight)[:, :1, None] * x

    block = shaken(Block(16, 4, feed_forward=Routed()))
    x = random(3, 8, 16)
    found = block.cross_attention.look_up(random(3, 2, 16, seed=2))
    index, weight = torch.tensor([[0], [1], [2]]), random(3, 1)
    after = x + block.self_attention(block.norms[0](x))
    after = after + block.cross_attention(block.norms[1](after), *found)
    expected = after + (index * weight)[:, :, None] * block.norms[-1](after)
    torch.testing.assert_close(block(x, found, neutral(), index, weight), expected)


def test_a_modulation_scales_shifts_and_gates_each_part():
    block = shaken(Block(16, 4, feed_forward=FeedForward(16, 32)))
    x, found = random(3, 8, 16), block.cross_attention.look_up(random(3, 2, 16, seed=2))
    closed = neutral()
    closed[:, 2::3] = 0
    torch.testing.assert_close(block(x, found, closed), x)
    only_last = closed.clone()
    only_last[:, 6:] = random(3, 3, 1, 16, seed=3)
    scale, shift, gate = only_last[:, 6:].unbind(1)
    expected = x + gate * block.feed_forward(scale * block.norms[-1](x) + shift)
    torch.testing.assert_close(block(x, found, only_last), expected)


def test_feed_forward():
    layer, x = shaken(FeedForward(16, 32)), random(3, 8, 16)
    torch.testing.assert_close(layer(x), layer.second(nn.functional.gelu(layer.first(x))))


def test_chunk_level_and_observations_all_matter_and_reach_every_output():
    network = make()
    chunk, level, tokens = chunk_level_tokens(rows=1)
    chunk.requires_grad_()
    tokens.requires_grad_()
    network(chunk, level, tokens)[0, -1].sum().backward()
    assert (chunk.grad != 0).all()  # the last action sees the first
    assert (tokens.grad != 0).all()
    with torch.no_grad():
        assert (network(chunk, level, tokens) != network(chunk, level + 1, tokens)).any()
        assert (network(chunk, level, tokens) != network(chunk, level, tokens.flip(1))).any()


def test_observations_are_attended_to_beside_the_modulation():
    network = make()
    chunk, level, tokens = chunk_level_tokens()
    other = random(*tokens.shape, seed=5)
    found, further = network.look_up(tokens), network.look_up(other)
    size = 9 * len(network.blocks)
    mixed = torch.cat([found[:, :size], further[:, size:]], dim=1)
    share = network.modulation_of_level(level)
    assert (network.denoise(chunk, share, mixed) != network.denoise(chunk, share, found)).any()


def test_rows_do_not_mix_and_one_level_for_all_is_that_level_for_each():
    network = make()
    chunk, level, tokens = chunk_level_tokens()
    with torch.no_grad():
        whole = network(chunk, level, tokens)
        for row in range(len(chunk)):
            one = slice(row, row + 1)
            torch.testing.assert_close(network(chunk[one], level[one], tokens[one]), whole[one])
        shared = network(chunk, torch.tensor([7]), tokens)
        torch.testing.assert_close(shared, network(chunk, torch.full((4,), 7), tokens))


def test_an_untrained_block_is_the_identity():
    torch.manual_seed(0)
    network = TransformerDenoiser(3, 8, 2, dim=16, layers=3, heads=4)
    chunk, level, tokens = (x.float() for x in chunk_level_tokens())
    expected = network.head(network.embed_action(chunk) + network.position)
    torch.testing.assert_close(network(chunk, level, tokens), expected)


@pytest.mark.parametrize("layers", [1, 3])
def test_prepared_and_laid_out_for_engines_it_computes_the_same(layers):
    network = make(layers, feed_forward=lambda: FeedForward(16, 32))
    levels = torch.tensor([90, 40, 0])
    form = InferenceTransformer(network, levels).double()
    chunk, _, tokens = chunk_level_tokens(rows=5)
    with torch.no_grad():
        found = form.look_up(tokens)
        torch.testing.assert_close(found, network.look_up(tokens))
        for i, level in enumerate(levels):
            expected = network(chunk, level[None], tokens)
            share = network.modulation_of_level(level[None])
            torch.testing.assert_close(network.denoise(chunk, share, found), expected)
            torch.testing.assert_close(form(chunk, torch.tensor([i]), found), expected)
        for weight in network.parameters():
            weight.zero_()  # the form does not follow later training
        torch.testing.assert_close(form(chunk, torch.tensor([2]), found), expected)


def test_dropout_acts_in_training_only():
    network = make(dropout=0.5)
    arguments = chunk_level_tokens()
    with torch.no_grad():
        torch.testing.assert_close(network(*arguments), network(*arguments))
        network.train()
        torch.manual_seed(0)
        assert (network(*arguments) != network(*arguments)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "heads must be >= 1, got 0"),
        ({"heads": 3}, "dim 128 must be .* a multiple of heads 3"),
        ({"dim": 2, "heads": 1}, "dim 2 must be >= 4"),
        ({"dim": 129, "heads": 1}, "dim 129 must be .* even"),
        ({"layers": 0}, "layers must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout 1.0 not in \[0, 1\)"),
    ],
)
def test_an_impossible_config_is_refused_by_field(options, message):
    with pytest.raises(ConfigError, match=message):
        Config(**options)


def test_a_block_refuses_heads_that_do_not_fit():
    with pytest.raises(ConfigError, match="heads 3 does not divide dim 16"):
        Block(16, 3, feed_forward=FeedForward(16, 32))

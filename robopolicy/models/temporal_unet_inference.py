"""A trained ``TemporalUNet`` laid out for inference engines: the same weights, other operators.

Activations stay channels-last, (rows, time, channels), and every convolution is one matrix product
with a constant, over all rows and time steps at once. Engines pack a constant factor once and share out
the product's rows among threads; their convolutions along one axis scale with neither (docs/experiments.md).
Only plain operators of the ONNX default domain come out of it.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.models.temporal_unet import ConvBlock, FilmResidualBlock, TemporalUNet


def mish_of_minus(minus: Tensor) -> Tensor:
    """mish(x), given -x: with s = sigmoid(-x) it is x * (1 - s^2) / (1 + s^2).

    That needs neither softplus, slow where engines have it, nor an exponential, which overflows in half
    precision.
    """
    s = torch.sigmoid(minus)
    square = s * s
    return minus * ((square - 1) / (square + 1))


class WindowProduct(nn.Module):
    """A convolution over time: gather each output's window of inputs, then one matrix product.

    Args:
        index: (windows, taps) time steps of the input; the horizon itself stands for zero padding.
        weight: (phases, taps, channels_in, channels_out); a window gives ``phases`` successive outputs.
        bias: (channels_out,).
        horizon: time steps of the input.
    """

    def __init__(self, index: Tensor, weight: Tensor, bias: Tensor, horizon: int) -> None:
        super().__init__()
        self.taps, phases = index.shape[1], len(weight)
        self.windows, self.channels_in, self.channels_out = len(index), weight.shape[2], weight.shape[3]
        self.horizon_out = self.windows * phases
        self.padded = bool((index == horizon).any())
        self.gathers = not torch.equal(index, torch.arange(horizon)[:, None])
        matrix = rearrange(weight, "phase tap c_in c_out -> (tap c_in) (phase c_out)")
        self.register_buffer("index", index.flatten())
        self.register_buffer("matrix", matrix.detach().contiguous())
        self.register_buffer("bias", bias.detach().repeat(phases))

    @classmethod
    def of_convolution(cls, layer: nn.Conv1d, horizon: int) -> WindowProduct:
        (taps,), (stride,), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
        first = torch.arange(0, horizon + 2 * padding - taps + 1, stride) - padding
        index = first[:, None] + torch.arange(taps)
        index[(index < 0) | (index >= horizon)] = horizon
        assert layer.bias is not None
        return cls(index, rearrange(layer.weight, "c_out c_in tap -> 1 tap c_in c_out"), layer.bias, horizon)

    @classmethod
    def of_transposed(cls, layer: nn.ConvTranspose1d, horizon: int) -> WindowProduct:
        """Of a layer that multiplies the horizon by its stride.

        Input i adds weight[tap] to output i * stride + tap - padding, so that output j * stride + phase
        sees inputs around j; taps that do not meet a phase are zeros in the matrix.
        """
        (taps,), (stride,), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
        assert taps - stride == 2 * padding
        low, high = -((taps - 1 - padding) // stride), (stride - 1 + padding) // stride
        offsets = torch.arange(low, high + 1)
        weight = layer.weight.new_zeros(stride, len(offsets), *layer.weight.shape[:2])
        for phase in range(stride):
            for i, offset in enumerate(offsets.tolist()):
                tap = phase + padding - offset * stride
                if 0 <= tap < taps:
                    weight[phase, i] = layer.weight[:, :, tap].detach()
        index = torch.arange(horizon)[:, None] + offsets
        index[(index < 0) | (index >= horizon)] = horizon
        assert layer.bias is not None
        return cls(index, weight, layer.bias, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, horizon, channels_in) -> (rows, horizon_out, channels_out)."""
        if self.padded:
            x = functional.pad(x, (0, 0, 0, 1))
        if self.gathers:
            x = x.index_select(1, self.index)
        product = torch.addmm(self.bias, x.reshape(-1, self.taps * self.channels_in), self.matrix)
        return product.reshape(-1, self.horizon_out, self.channels_out)


class NormalisedMish(nn.Module):
    """Group norm, then Mish; the norm's affine part is kept negated, which spares Mish a pass over memory."""

    def __init__(self, norm: nn.GroupNorm, horizon: int) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.shape = (horizon, norm.num_groups, norm.num_channels // norm.num_groups)
        for name, value in (("scale", norm.weight), ("shift", norm.bias)):
            # as large as the activations of a row: broadcasting along short axes costs more
            full = repeat(-value.detach(), "(group c) -> group time c", group=self.groups, time=horizon)
            self.register_buffer(name, full.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(rows, horizon, channels), any leading shape; gives (rows, horizon, channels)."""
        grouped = x.reshape(-1, *self.shape).transpose(1, 2)
        minus = functional.instance_norm(grouped, eps=self.eps) * self.scale + self.shift
        return mish_of_minus(minus).transpose(1, 2).reshape(-1, self.shape[0], self.shape[1] * self.shape[2])


class InferenceConvBlock(nn.Sequential):
    """``ConvBlock``."""

    def __init__(self, block: ConvBlock, horizon: int) -> None:
        convolution, norm = block[0], block[1]
        super().__init__(WindowProduct.of_convolution(convolution, horizon), NormalisedMish(norm, horizon))


class InferenceFilmBlock(nn.Module):
    """``FilmResidualBlock``, with 1 + scale and shift, (rows, 1, channels) each, given."""

    def __init__(self, block: FilmResidualBlock, horizon: int) -> None:
        super().__init__()
        self.first = InferenceConvBlock(block.first, horizon)
        self.second = InferenceConvBlock(block.second, horizon)
        skip = block.skip
        self.skip = WindowProduct.of_convolution(skip, horizon) if isinstance(skip, nn.Conv1d) else skip

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.second(scale * self.first(x) + shift) + self.skip(x)


class InferenceUNet(nn.Module):
    """``TemporalUNet`` for chunks of one horizon and for the noise levels of one sampler.

    Args:
        network: whose weights are copied.
        levels: (denoising_steps,) noise levels; ``step`` counts them.
    """

    def __init__(self, network: TemporalUNet, horizon: int, levels: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            shares = network.film_of_step(levels).split(network.film_sizes, dim=-1)
            scales_plus_one = [share + (i % 2 == 0) for i, share in enumerate(shares)]
            self.register_buffer("film_of_step", torch.cat(scales_plus_one, dim=-1))
            layers = [block.film[1] for block in network.film_blocks]
            known = layers[0].in_features - network.step_embedding
            self.register_buffer(
                "film_weight", torch.cat([f.weight[:, :known] for f in layers]).T.contiguous()
            )
            self.register_buffer("film_bias", torch.cat([f.bias for f in layers]))
        self.film_sizes = network.film_sizes
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for first, second, halve in network.down:
            blocks = [InferenceFilmBlock(block, horizon) for block in (first, second)]
            if isinstance(halve, nn.Conv1d):
                halve = WindowProduct.of_convolution(halve, horizon)
                horizon = halve.horizon_out
            self.down.append(nn.ModuleList([*blocks, halve]))
        self.middle = nn.ModuleList([InferenceFilmBlock(block, horizon) for block in network.middle])
        for first, second, double in network.up:
            blocks = [InferenceFilmBlock(block, horizon) for block in (first, second)]
            double = WindowProduct.of_transposed(double, horizon)
            horizon = double.horizon_out
            self.up.append(nn.ModuleList([*blocks, double]))
        self.head = nn.Sequential(
            InferenceConvBlock(network.head[0], horizon),
            WindowProduct.of_convolution(network.head[1], horizon),
        )

    def film_of_conditioning(self, conditioning: Tensor) -> Tensor:
        """As ``TemporalUNet.film_of_conditioning``, in one product."""
        return torch.addmm(self.film_bias, mish_of_minus(-conditioning), self.film_weight)

    def forward(self, chunk: Tensor, step: Tensor, film: Tensor) -> Tensor:
        """The prediction, (rows, horizon, action_dim).

        Args:
            chunk: (rows, horizon, action_dim).
            step: (1,) int64, counted from the first denoising step.
            film: (rows, sum(film_sizes)) of ``film_of_conditioning``.
        """
        film = film + self.film_of_step.index_select(0, step)
        parts = iter(film[:, None].split(self.film_sizes, dim=-1))

        def run(block: nn.Module, x: Tensor) -> Tensor:
            return block(x, next(parts), next(parts))

        x, skips = chunk, []
        for first, second, halve in self.down:
            x = run(second, run(first, x))
            skips.append(x)
            x = halve(x)
        for block in self.middle:
            x = run(block, x)
        for first, second, double in self.up:
            x = double(run(second, run(first, torch.cat([x, skips.pop()], dim=-1))))
        return self.head(x)

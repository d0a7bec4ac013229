"""Convolutions over time that train as plain matrix products where these are faster.

oneDNN, which torch uses on a CPU, reorders the weights and their gradient in every step. Where a layer has
many more weights than activations, as in a U-Net of hundreds of millions of parameters, that takes longer
than the products themselves (docs/experiments.md has the measurements). Parameters, their names and shapes
are those of torch's own layers, and so are the results but for rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

#: From so many weights on products were faster for every batch that was tried [-].
MANY_WEIGHTS = 2**21


class Convolution(nn.Conv1d):
    """(rows, channels_in, time) -> (rows, channels_out, time / stride); neither groups nor dilation."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (kernel,), (stride,), padding = self.kernel_size, self.stride, int(self.padding[0])
        rows, time = x.shape[0], (x.shape[-1] + 2 * padding - kernel) // stride + 1
        if not (self.training and _pays(x, weight.shape[0], rows * time, weight)):
            return super()._conv_forward(x, weight, bias)
        windows = functional.pad(x, (padding, padding)).unfold(2, kernel, stride)
        matrix = windows.transpose(1, 2).reshape(rows * time, -1)  # columns in the weights' order
        found: Tensor = functional.linear(matrix, weight.flatten(1), bias)
        return found.view(rows, time, -1).transpose(1, 2)


class TransposedConvolution(nn.ConvTranspose1d):
    """(rows, channels_in, time) -> (rows, channels_out, about time * stride); neither groups nor dilation."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        rows, channels, time = x.shape
        if not (self.training and _pays(x, self.weight.shape[1], rows * time, self.weight)):
            return super().forward(x, output_size)
        (kernel,), (stride,), padding = self.kernel_size, self.stride, int(self.padding[0])
        spread = x.transpose(1, 2).reshape(rows * time, channels) @ self.weight.flatten(1)
        overlapping = spread.view(rows, time, -1).transpose(1, 2)
        size = (1, (time - 1) * stride + kernel - 2 * padding)
        summed = functional.fold(overlapping, size, (1, kernel), padding=(0, padding), stride=(1, stride))
        return summed[:, :, 0] if self.bias is None else summed[:, :, 0] + self.bias[:, None]


def _pays(x: Tensor, channels_out: int, positions: int, weight: Tensor) -> bool:
    """Only float32 training on a CPU: inference must not round differently from batch to batch."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return weight.numel() >= MANY_WEIGHTS or 2 * positions <= channels_out

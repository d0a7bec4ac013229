"""Samplers whose steps need more than the chunk: fresh noise (DDPM) or the clean chunk before (DPM-Solver++).

Both are rows of ``ddim.ddim_update`` with one number more: how much of that other chunk a step adds.
diffusers is the reference: tests hold them against ``DDPMScheduler.step`` and
``DPMSolverMultistepScheduler.step``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from robopolicy.models.ddim import ddim_update, to_clean_and_noise

SAMPLERS = ("ddim", "ddpm", "dpm_solver")

#: A noisy chunk and a step's row to what the denoiser predicts.
Predict = Callable[[Tensor, Tensor], Tensor]


def ddpm_rows(
    levels: Sequence[int], signal: Sequence[float], noise: Sequence[float], prediction: str, kind: str
) -> Tensor:
    """(denoising_steps, 9) rows: the mean of the posterior (Ho et al. 2020, eq. 7), then its deviation.

    Arguments are those of ``ddim.ddim_rows``.
    """
    rows = []
    for level, (s, n), (s_next, n_next) in _pairs(levels, signal, noise):
        kept = (s / s_next) ** 2
        e, f = s_next * (1 - kept) / n**2, math.sqrt(kept) * (n_next / n) ** 2
        a, b, _, _ = to_clean_and_noise(s, n, prediction, kind)
        rows.append([level, a, b, 1.0, 0.0, e, f, 0.0, n_next / n * math.sqrt(1 - kept)])
    return torch.tensor(rows)


def dpm_solver_rows(
    levels: Sequence[int], signal: Sequence[float], noise: Sequence[float], prediction: str, kind: str
) -> Tensor:
    """(denoising_steps, 9) rows: DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), then the share of the clean
    chunk before. The first step and the last have none.

    Arguments are those of ``ddim.ddim_rows``.
    """
    rows = []
    before = None  # the last step's in log signal-to-noise
    for level, (s, n), (s_next, n_next) in _pairs(levels, signal, noise):
        f = n_next / n
        e = s_next - f * s
        width = math.log(s_next / n_next * n / s) if s > 0 and n_next > 0 else math.inf
        second = 0.0 if before is None or math.isinf(width) else e * width / before / 2
        a, b, _, _ = to_clean_and_noise(s, n, prediction, kind)
        rows.append([level, a, b, 1.0, 0.0, e + second, f, 0.0, -second])
        before = width
    return torch.tensor(rows)


def _pairs(
    levels: Sequence[int], signal: Sequence[float], noise: Sequence[float]
) -> Iterator[tuple[int, tuple[float, float], tuple[float, float]]]:
    """Each level, its signal and noise, and those of the level after it."""
    values = [(signal[level], noise[level]) for level in levels]
    return zip(levels, values, [*values[1:], (1.0, 0.0)])


def run_ddpm(
    predict: Predict,
    steps: Tensor,
    noise: Tensor,
    prefix: Tensor | None = None,
    prefix_weight: Tensor | None = None,
) -> Tensor:
    """Chunks (rows, prediction_horizon, action_dim) from noise (rows, denoising_steps, prediction_horizon,
    action_dim): the start of the chain, then what every step but the last adds."""
    chunk, *fresh = noise.unbind(1)
    for i, row in enumerate(steps):
        chunk = ddim_update(chunk, predict(chunk, row), row[:-1], prefix, prefix_weight)
        if i < len(fresh):
            chunk = chunk + row[-1] * fresh[i]
    return chunk


def run_dpm_solver(
    predict: Predict,
    steps: Tensor,
    noise: Tensor,
    prefix: Tensor | None = None,
    prefix_weight: Tensor | None = None,
) -> Tensor:
    """Chunks from noise (rows, prediction_horizon, action_dim)."""
    chunk, before = noise, torch.zeros_like(noise)
    for row in steps:
        predicted = predict(chunk, row)
        clean = (row[1] * chunk + row[2] * predicted).clamp(-1.0, 1.0)
        if prefix is not None and prefix_weight is not None:
            clean = clean + prefix_weight[..., None] * (prefix - clean)
        chunk = ddim_update(chunk, predicted, row[:-1], prefix, prefix_weight) + row[-1] * before
        before = clean
    return chunk

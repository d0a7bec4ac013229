"""Deterministic DDIM (Song et al. 2021) as one table of coefficients, so that every step is the same graph.

diffusers is the reference: tests hold this form against ``DDIMScheduler.step`` and, for flow matching,
``FlowMatchEulerDiscreteScheduler.step`` to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ddim_rows(
    levels: Sequence[int],
    signal: Sequence[float],
    noise: Sequence[float],
    prediction: str,
    kind: str = "squared_cosine",
) -> Tensor:
    """(denoising_steps, 8) rows of: level, a, b, c, d, e, f, g as ``ddim_update`` uses them.

    With s = signal and n = noise at a level, the clean chunk is a*x + b*out and the noise c*x + d*out,
    whatever the network predicts; the next chunk is e*clean + f*noise, signal and noise being those of the
    next level, and 1 and 0 after the last. For kind "flow" that is the Euler step along the velocity.
    Moving the clean chunk by delta moves the noise that x implies by -s/n delta, hence the next chunk by
    -g delta, g = f s/n, on top.

    Args:
        levels: of each iteration, the noisiest first; indices of ``signal`` and ``noise``.
        prediction, kind: see ``noise_schedule.ScheduleConfig``.
    """
    rows = []
    for level, following in zip(levels, [*levels[1:], None]):
        s, n = signal[level], noise[level]
        e, f = (1.0, 0.0) if following is None else (signal[following], noise[following])
        rows.append([level, *to_clean_and_noise(s, n, prediction, kind), e, f, f * s / n])
    return torch.tensor(rows)


def to_clean_and_noise(s: float, n: float, prediction: str, kind: str) -> tuple[float, float, float, float]:
    """a, b, c, d of ``ddim_rows`` at signal s and noise n."""
    if prediction == "sample":
        return 0.0, 1.0, 1 / n, -s / n
    if prediction == "epsilon":
        return 1 / s, -n / s, 0.0, 1.0
    return (1.0, -n, 1.0, s) if kind == "flow" else (s, -n, n, s)


def ddim_update(
    chunk: Tensor,
    predicted: Tensor,
    parameters: Tensor,
    prefix: Tensor | None = None,
    prefix_weight: Tensor | None = None,
) -> Tensor:
    """The next, less noisy chunk; clean predictions are clipped to the normalised range [-1, 1].

    A prefix draws the clean prediction to itself, and the noise follows, so that where the weight is 1 the
    chunk goes the way on which the prefix itself is denoised. This is the guidance of real-time chunking
    (Black et al. 2025, eq. 2; Song et al. 2023) with the network's Jacobian replaced by that of a unit
    Gaussian, s; see ``docs/derivations.md``.

    Args:
        prefix, prefix_weight: (rows, prediction_horizon, action_dim) normalised actions, and (rows,
            prediction_horizon) how far the clean prediction is drawn to them: 1 replaces it.
    """
    _, a, b, c, d, e, f, g = parameters.unbind()
    clean = (a * chunk + b * predicted).clamp(-1.0, 1.0)
    chunk_next = e * clean + f * (c * chunk + d * predicted)
    if prefix is None or prefix_weight is None:
        return chunk_next
    return chunk_next + (e - g) * prefix_weight[..., None] * (prefix - clean)

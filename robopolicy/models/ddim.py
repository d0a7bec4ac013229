"""Deterministic DDIM (Song et al. 2021) as one table of coefficients, so that every step is the same graph.

diffusers owns the schedule; a test holds this form against ``DDIMScheduler.step`` to rounding.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor


def ddim_steps(schedule: DDIMScheduler, denoising_steps: int) -> Tensor:
    """(denoising_steps, 8) rows of: level, a, b, c, d, e, f, g as ``ddim_update`` uses them.

    With s = sqrt(alpha_bar), n = sqrt(1 - alpha_bar) at a level, the clean chunk is a*x + b*out and
    the noise c*x + d*out, whatever the network predicts; the next chunk is e*clean + f*noise. Moving the
    clean chunk by delta moves the noise that x implies by -s/n delta, hence the next chunk by -g delta,
    g = f s/n, on top.
    """
    schedule.set_timesteps(denoising_steps)
    stride = schedule.config["num_train_timesteps"] // denoising_steps
    rows = []
    for level in schedule.timesteps.tolist():
        alpha = float(schedule.alphas_cumprod[level])
        before = level - stride
        final = float(schedule.final_alpha_cumprod)
        alpha_next = float(schedule.alphas_cumprod[before]) if before >= 0 else final
        s, n = alpha**0.5, (1 - alpha) ** 0.5
        to_clean_and_noise = {
            "sample": (0.0, 1.0, 1 / n, -s / n),
            "epsilon": (1 / s, -n / s, 0.0, 1.0),
            "v_prediction": (s, -n, n, s),
        }[schedule.config["prediction_type"]]
        e, f = alpha_next**0.5, (1 - alpha_next) ** 0.5
        rows.append([level, *to_clean_and_noise, e, f, f * s / n])
    return torch.tensor(rows)


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

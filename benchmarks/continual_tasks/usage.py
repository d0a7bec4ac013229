"""Which experts a policy uses for what, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robopolicy.models.policy_module import PolicyModule
from robopolicy.policies._saved import load_policy


def draw_usage(run: Path, image: Path) -> bool:
    """A map for each layer: tasks (or noise levels) by experts. False for a policy without experts."""
    module = load_policy(run, "cpu").module
    found = usage_of(module)
    if found is None:
        return False
    maps, rows, label = found
    layers, count, experts = maps.shape
    figure = Figure((1.2 + layers * (0.34 * experts + 0.5), 1.3 + 0.32 * count), layout="constrained")
    axes = figure.subplots(1, layers, sharey=True, squeeze=False)[0]
    for layer, (axis, values) in enumerate(zip(axes, maps)):
        drawn = axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_title(f"layer {layer}", fontsize=10)
        axis.set_xlabel("expert")
        axis.set_xticks(range(experts))
        axis.set_xticks(np.arange(experts + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="0.85", linewidth=0.5)
        axis.tick_params(which="minor", length=0)
    axes[0].set_yticks(range(count), rows)
    axes[0].set_ylabel(label)
    figure.colorbar(drawn, ax=list(axes), label="weight of the expert", shrink=0.9)
    figure.savefig(image, dpi=150)
    return True


@torch.no_grad()
def usage_of(module: PolicyModule) -> tuple[NDArray[np.float32], list[str], str] | None:
    """(layers, rows, experts) weights, and what the rows are; None without experts."""
    if hasattr(module, "expert_usage"):  # sdp
        return module.expert_usage().numpy(), list(module.config.tasks), "task"
    denoiser = module.denoiser
    if not hasattr(denoiser, "noise_token"):
        return None
    steps = module.steps  # mode routes by noise level; the last number of a step is its level
    maps = []
    for row in steps:
        routes = denoiser.routes(denoiser.noise_token(row[9:]))
        weights = [torch.zeros(r.probabilities.shape[-1]).scatter(0, r.index[0], r.weight[0]) for r in routes]
        maps.append(torch.stack(weights))
    return torch.stack(maps, dim=1).numpy(), [str(i) for i in range(len(steps))], "denoising step"

"""Which experts a policy uses at which noise level: a map for every layer."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray

from robopolicy.models.edm import inference_sigmas
from robopolicy.policies.mode import MixtureOfDenoisingExperts

LEVELS = 60


def usage_map(policy: MixtureOfDenoisingExperts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(levels,) sigmas, and (layers, levels, experts) weights of the experts' outputs, 0 where not taken."""
    schedule = policy.config.schedule
    sigma = torch.logspace(np.log10(schedule.sigma_min), np.log10(schedule.sigma_max), LEVELS)
    with torch.inference_mode():
        routes = policy.denoiser.routes(policy.denoiser.noise_token(sigma))
    shares = [torch.zeros_like(route.probabilities).scatter(1, route.index, route.weight) for route in routes]
    return sigma.numpy(), torch.stack(shares).numpy()


def draw(policy: MixtureOfDenoisingExperts, path: Path, title: str) -> None:
    """One panel a layer; lines mark the sigmas of the sampler's steps."""
    sigma, shares = usage_map(policy)
    layers, _, experts = shares.shape
    figure, axes = plt.subplots(
        1, layers, figsize=(2.6 * layers + 1, 3.2), sharey=True, squeeze=False, layout="constrained"
    )
    edges = np.geomspace(sigma[0], sigma[-1], LEVELS + 1)
    for layer, axis in enumerate(axes[0]):
        columns = np.arange(experts + 1) - 0.5
        image = axis.pcolormesh(columns, edges, shares[layer], vmin=0, vmax=1, cmap="viridis")
        axis.set(yscale="log", xticks=range(experts), xlabel="expert", title=f"layer {layer}")
        for level in inference_sigmas(policy.config.schedule).tolist():
            axis.axhline(level, color="white", linewidth=0.5, linestyle=":")
    axes[0, 0].set_ylabel("noise level sigma")
    figure.colorbar(image, ax=axes[0].tolist(), label="weight of the output")
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)

"""Policies to load an evaluation with: one that costs nothing, and real networks that nobody trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.core.horizons import Horizons
from robopolicy.core.policy import NO_CONTEXT
from robopolicy.core.specs import PolicySpecs, Specs

HORIZONS = Horizons(2, 16, 8)


class Sway:
    """Moves the arm smoothly about where it is, by sines whose phases are the noise; numpy alone."""

    def __init__(self, specs: Specs) -> None:
        self.policy_specs = PolicySpecs(specs, HORIZONS, noise_shape=(specs.action.dim,))
        self._angle = np.arange(HORIZONS.prediction, dtype=np.float32)[:, None] / HORIZONS.prediction

    def sample(self, observation: Any, noise: Any, context: Any = NO_CONTEXT) -> Any:
        """As ``Policy.sample``: 0.1 rad about the newest joint positions, the gripper open."""
        joints = observation["joint_position"][:, None, None, -1]
        phases = noise[:, :, None]
        sway = 0.1 * (np.sin(2 * np.pi * (self._angle + phases)) - np.sin(2 * np.pi * phases))
        opening = np.full((*sway.shape[:-1], 1), 0.08)
        return np.concatenate([joints + sway[..., :-1], opening], axis=-1).astype(np.float32)


def save_untrained(folder: Path, env: Any, keys: tuple[str, ...]) -> Path:
    """The default diffusion policy with random weights, for these observations of an environment.

    Its cost and its arithmetic are those of a trained one; its actions stay near the home posture.
    """
    import torch

    from robopolicy.core.normalise import Affine, Normalisers
    from robopolicy.policies._saved import save_policy
    from robopolicy.policies.diffusion_unet import Config, build

    observation = {name: env.specs.observation[name] for name in keys}
    task = Specs(observation, env.specs.action, env.specs.policy_rate, env.specs.robot)
    specs = PolicySpecs(task, HORIZONS)
    torch.manual_seed(0)
    module = build(Config(), specs)
    home = (*env.robot.home, 0.04)
    action = Affine(home, (0.2,) * (len(home) - 1) + (0.04,))
    states = {name: spec for name, spec in observation.items() if spec.kind == "state"}
    state = {n: Affine((0.0,) * s.shape[0], (1.0,) * s.shape[0]) for n, s in states.items()}
    save_policy(
        folder,
        family="diffusion_unet",
        config=Config(),
        specs=module.policy_specs,
        normalisers=Normalisers(state, action),
        weights=module.state_dict(),
    )
    return folder

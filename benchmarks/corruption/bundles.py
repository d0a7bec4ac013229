"""Two tiny policies with critics, exported in both forms."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from robopolicy.core.horizons import Horizons
from robopolicy.core.normalise import Affine, Normalisers
from robopolicy.core.specs import ActionPart, ActionSpec, ArraySpec, PolicySpecs, Specs
from robopolicy.export.bundle import export_bundle
from robopolicy.export.options import ExportOptions
from robopolicy.models.critic_module import CriticModule, TorchCritic
from robopolicy.models.noise_schedule import ScheduleConfig
from robopolicy.policies._saved import save_policy
from robopolicy.policies.diffusion_unet import Config, build


class TinyCritic(CriticModule):
    """Linear in the observation and the chunk."""

    def __init__(self, specs: PolicySpecs) -> None:
        super().__init__()
        self.policy_specs = specs
        seen = sum(s.num_features for s in specs.specs.observation.values()) * specs.horizons.observation
        horizon, dim = specs.chunk_shape
        self.head = nn.Linear(seen + horizon * dim, 2)

    def encode(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        return torch.cat(
            [observation[name].flatten(1) for name in self.policy_specs.specs.observation], dim=-1
        )

    def value(self, conditioning: Tensor, chunk: Tensor) -> Tensor:
        return self.head(torch.cat([conditioning, chunk.flatten(1)], dim=-1))


def tiny_bundles(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Form to two bundles of the same layout and different weights."""
    action = ActionSpec((ActionPart("joint_position", ("a", "b")), ActionPart("gripper_opening", ("grip",))))
    observation = {"joints": ArraySpec((3,), units=("rad", "rad", "m")), "goal": ArraySpec((2,))}
    specs = PolicySpecs(Specs(observation, action, policy_rate=10.0), Horizons(2, 8, 4))
    maps = {name: Affine((0.1,) * s.num_features, (2.0,) * s.num_features) for name, s in observation.items()}
    config = Config(
        channels=(16, 32), step_embedding=8, schedule=ScheduleConfig(training_steps=20, denoising_steps=3)
    )
    pairs: dict[str, list[Path]] = {"unrolled": [], "step": []}
    for seed in (0, 1):
        torch.manual_seed(seed)
        policy = build(config, specs)
        normalisers = Normalisers(maps, Affine((0.0, 0.1, 0.04), (0.5, 0.5 + seed / 10, 0.04)))
        save_policy(
            folder / f"run{seed}" / "policy",
            family="diffusion_unet",
            config=config,
            specs=policy.policy_specs,
            normalisers=normalisers,
            weights=policy.state_dict(),
        )
        critic = TorchCritic(TinyCritic(policy.policy_specs), normalisers)
        for form, paths in pairs.items():
            paths.append(folder / f"{form}{seed}")
            options = ExportOptions(form=form, candidates=(1, 2))
            export_bundle(folder / f"run{seed}", paths[-1], options=options, critic=critic)
    return {form: (paths[0], paths[1]) for form, paths in pairs.items()}

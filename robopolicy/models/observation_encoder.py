"""Observations, goals and an instruction to features: states as they are, each camera through an encoder."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from robopolicy.core.errors import ConfigError, SpecError
from robopolicy.core.goals import goal_keys, source_of
from robopolicy.core.language import INSTRUCTION
from robopolicy.core.specs import PolicySpecs
from robopolicy.models.augmentation import AugmentationConfig, ImageChange, noisy
from robopolicy.models.vision import VisionEncoder

GROUPS = 8  # of every group norm


@dataclass(frozen=True)
class ObservationConfig:
    """How a policy looks at its observations; the same options for every family.

    Args:
        vision_channels, keypoints: of each camera's encoder.
        crop: part of each side of an image that the network sees: at a random place for each window in
            training, in the middle otherwise.
        augmentation: what else training does to images and states.
        instruction_features: that the embedded instruction is projected to.
    Raises:
        ConfigError: names the field.
    """

    vision_channels: tuple[int, ...] = (16, 32, 64, 128)
    keypoints: int = 32
    crop: float = 0.9
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    instruction_features: int = 64

    def __post_init__(self) -> None:
        if not self.vision_channels or any(c < 1 or c % GROUPS for c in self.vision_channels):
            raise ConfigError(
                f"vision_channels must be multiples of {GROUPS} (group norm), got {self.vision_channels}"
            )
        for name in ("keypoints", "instruction_features"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop {self.crop} not in (0, 1]")


class ObservationEncoder(nn.Module):
    """States and camera features per observation step, goals, and the instruction where the specs have one.

    Goals ("goal.KEY") do not change within a window, so they are encoded once, from the newest step. The
    camera "goal.KEY" goes through the encoder of the camera KEY: what to reach is then in the terms of
    what is seen.

    ``forward`` gives all of it as one vector (batch, dim), goals once. For policies that attend to tokens,
    ``steps`` gives the goal with every observation step, so that they need to know nothing about goals;
    ``sensed`` and ``goal`` give the two apart.

    Args:
        specs: which observations there are; keys are taken in the spec's order.
    Raises:
        SpecError: nothing is observed but goals, or a depth image, which no encoder here takes yet.
    """

    def __init__(self, specs: PolicySpecs, config: ObservationConfig) -> None:
        super().__init__()
        observation = specs.specs.observation
        if depth := [name for name, spec in observation.items() if spec.kind == "depth"]:
            raise SpecError(f"policies cannot take depth images yet, got {depth}; leave them out of the keys")
        if unknown := [key for key in config.augmentation.noise_keys if key not in observation]:
            raise SpecError(f"noise_keys {unknown} are no observations; there are {sorted(observation)}")
        self.config = config
        goals = goal_keys(observation)
        if len(goals) == len(observation):
            raise SpecError(f"a policy must observe something besides its goals {goals}")
        self.states = [n for n, s in observation.items() if s.kind == "state" and n not in goals]
        self.cameras = [n for n, s in observation.items() if s.kind == "image" and n not in goals]
        self.goal_states = [n for n in goals if observation[n].kind == "state"]
        self.goal_cameras = [n for n in goals if observation[n].kind == "image"]
        lenses = dict.fromkeys([*self.cameras, *map(source_of, self.goal_cameras)])
        self._lens = {name: place for place, name in enumerate(lenses)}
        self.vision = nn.ModuleList(
            VisionEncoder(config.vision_channels, keypoints=config.keypoints, crop=config.crop)
            for _ in lenses
        )
        self.words = (
            nn.Linear(specs.instruction_dim, config.instruction_features) if specs.instruction_dim else None
        )
        self.sensed_dim = sum(observation[name].num_features for name in self.states)
        self.sensed_dim += 2 * config.keypoints * len(self.cameras)
        self.goal_dim = sum(observation[name].num_features for name in self.goal_states)
        self.goal_dim += 2 * config.keypoints * len(self.goal_cameras)
        self.step_dim = self.sensed_dim + self.goal_dim
        self.horizon = specs.horizons.observation
        self.dim = self.sensed_dim * self.horizon + self.goal_dim
        self.dim += config.instruction_features if self.words else 0

    def sensed(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """(batch, observation_horizon, sensed_dim): all but goals and the instruction."""
        parts = [self._state(observation[name], name, generator) for name in self.states]
        for name in self.cameras:
            rows = self._seen(observation[name], name, generator)
            parts.append(rearrange(rows, "(batch time) dim -> batch time dim", time=self.horizon))
        return torch.cat(parts, dim=-1)

    def goal(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor | None:
        """(batch, goal_dim), or None for a policy without goals."""
        parts = [self._state(observation[name][:, -1], name, generator) for name in self.goal_states]
        for name in self.goal_cameras:
            parts.append(self._seen(observation[name][:, -1:], source_of(name), generator))
        return torch.cat(parts, dim=-1) if parts else None

    def steps(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """(batch, observation_horizon, step_dim), goals with every step; a generator means training, so
        augment."""
        sensed, goal = self.sensed(observation, generator), self.goal(observation, generator)
        if goal is None:
            return sensed
        return torch.cat([sensed, goal[:, None].expand(-1, self.horizon, -1)], dim=-1)

    def instruction(self, observation: dict[str, Tensor]) -> Tensor | None:
        """(batch, instruction_features), or None for a policy without instructions."""
        return None if self.words is None else self.words(observation[INSTRUCTION])

    def forward(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        steps = rearrange(self.sensed(observation, generator), "batch time dim -> batch (time dim)")
        rest = (self.goal(observation, generator), self.instruction(observation))
        parts = [steps, *(part for part in rest if part is not None)]
        return torch.cat(parts, dim=-1) if len(parts) > 1 else steps

    def _state(self, state: Tensor, name: str, generator: torch.Generator | None) -> Tensor:
        return state if generator is None else noisy(state, name, self.config.augmentation, generator)

    def _seen(self, images: Tensor, camera: str, generator: torch.Generator | None) -> Tensor:
        """(batch, time, height, width, 3) -> (batch * time, features); all steps of a window alike."""
        change = None
        if generator is not None:
            drawn = ImageChange.draw(self.config.augmentation, len(images), generator, images.device)
            change = drawn.repeat(images.shape[1])
        encoder = self.vision[self._lens[camera]]
        rows: Tensor = encoder(rearrange(images, "batch time h w c -> (batch time) h w c"), change)
        return rows

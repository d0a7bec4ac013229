"""Observation windows to one vector: states as they are, each camera through its own encoder."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from robopolicy.core.specs import PolicySpecs
from robopolicy.models.vision import VisionEncoder


class ObservationEncoder(nn.Module):
    """Concatenates, per observation step, every state and every camera's features.

    Args:
        specs: which observations there are; keys are taken in the spec's order.
        state_noise: standard deviation of training noise on normalised states [-].
    """

    def __init__(
        self,
        specs: PolicySpecs,
        *,
        vision_channels: tuple[int, ...],
        keypoints: int,
        crop: float,
        state_noise: float,
    ) -> None:
        super().__init__()
        observation = specs.specs.observation
        self.states = [name for name, spec in observation.items() if spec.kind == "state"]
        self.cameras = [name for name, spec in observation.items() if spec.kind == "image"]
        self.state_noise = state_noise
        self.vision = nn.ModuleList(
            VisionEncoder(vision_channels, keypoints=keypoints, crop=crop) for _ in self.cameras
        )
        per_step = sum(observation[name].num_features for name in self.states)
        per_step += 2 * keypoints * len(self.cameras)
        self.conditioning_dim = per_step * specs.horizons.observation

    def forward(self, observation: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        parts = []
        for name in self.states:
            state = observation[name]
            if generator is not None and self.state_noise > 0:
                noise = torch.randn(state.shape, generator=generator, device=state.device)
                state = state + self.state_noise * noise
            parts.append(rearrange(state, "batch time feature -> batch (time feature)"))
        for name, encoder in zip(self.cameras, self.vision):
            images = observation[name]
            offset = None if generator is None else torch.rand(2, generator=generator, device=images.device)
            rows = encoder(rearrange(images, "batch time h w c -> (batch time) h w c"), offset)
            parts.append(
                rearrange(rows, "(batch time) feature -> batch (time feature)", batch=images.shape[0])
            )
        return torch.cat(parts, dim=-1)

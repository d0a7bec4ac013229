"""A small ResNet with group norm and spatial softmax: image to keypoint-like features.

Group norm instead of batch norm, since EMA and batch statistics do not mix; spatial softmax keeps
where things are (Finn et al. 2016; both as in Chi et al. 2023).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from robopolicy.models.augmentation import ImageChange, crop


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm and a projected skip."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.GroupNorm(groups, channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.GroupNorm(groups, channels_out),
        )
        changed = stride != 1 or channels_in != channels_out
        self.skip = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class SpatialSoftmax(nn.Module):
    """Expected image coordinates of each feature map: (rows, c, h, w) -> (rows, 2 * keypoints)."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.to_keypoints = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.to_keypoints(x)
        height, width = maps.shape[-2:]
        weight = rearrange(maps, "rows k h w -> rows k (h w)").softmax(-1)
        weight = rearrange(weight, "rows k (h w) -> rows k h w", h=height)
        across = torch.linspace(-1, 1, width, device=x.device)
        down = torch.linspace(-1, 1, height, device=x.device)
        expected_x = (weight.sum(-2) * across).sum(-1)
        expected_y = (weight.sum(-1) * down).sum(-1)
        return torch.cat([expected_x, expected_y], dim=-1)


class VisionEncoder(nn.Module):
    """uint8 images (rows, height, width, 3) -> (rows, features).

    Args:
        channels: of the stem and of each residual stage; every stage after the first halves the image.
        keypoints: of the spatial softmax; features = 2 * keypoints.
        crop: side of the random crop in training and the centre crop otherwise, as a fraction.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 128),
        *,
        keypoints: int = 32,
        groups: int = 8,
        crop: float = 0.9,
    ) -> None:
        super().__init__()
        self.crop = crop
        self.features = 2 * keypoints
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels[0], 5, 2, 2, bias=False), nn.GroupNorm(groups, channels[0]), nn.ReLU()
        )
        stages = zip((channels[0], *channels), channels)
        self.stages = nn.Sequential(
            *(ResidualBlock(a, b, 1 if i == 0 else 2, groups) for i, (a, b) in enumerate(stages))
        )
        self.pool = SpatialSoftmax(channels[-1], keypoints)

    def forward(self, images: Tensor, change: ImageChange | None = None) -> Tensor:
        """``change``: what training does to each row; None crops the centre."""
        height, width = (round(side * self.crop) for side in images.shape[1:3])
        room_y, room_x = images.shape[1] - height, images.shape[2] - width
        top: int | Tensor = room_y // 2
        left: int | Tensor = room_x // 2
        if change is None:
            cropped = images[:, top : top + height, left : left + width]
        else:
            top = (change.offset[:, :1] * (room_y + 1)).long()
            left = (change.offset[:, 1:] * (room_x + 1)).long()
            cropped = crop(images, top[:, 0], left[:, 0], height, width)
        x = rearrange(cropped, "rows h w c -> rows c h w").float() / 127.5 - 1
        if change is not None:
            x = change.recolour(x)
        keypoints = self.pool(self.stages(self.stem(x)))
        across, down = keypoints.chunk(2, dim=-1)
        across = _in_whole_image(across, left, width, images.shape[2])
        down = _in_whole_image(down, top, height, images.shape[1])
        return torch.cat([across, down], dim=-1)


def _in_whole_image(place: Tensor, start: int | Tensor, size: int, whole: int) -> Tensor:
    """Coordinates -1..1 within a crop as coordinates -1..1 within the image it was cut from.

    Otherwise a random crop would move every keypoint by an amount that the network cannot know.
    """
    return (2 * start + (place + 1) * (size - 1)) / (whole - 1) - 1

"""What changes a training window before the network sees it; every random number comes from the generator.

Each window gets its own changes, and all its observation steps the same ones: otherwise a change would look
like motion. Everything is a tensor operation on the device of the images, without a decision in Python.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robopolicy.core.errors import ConfigError

#: Luma of red, green and blue. Source: ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)
#: Red, green, blue to luma and the two chroma axes of NTSC, in whose plane hue is an angle.
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class AugmentationConfig:
    """How strongly training windows are changed. Nothing is by default but the random crop, whose size
    is the ``crop`` of ``ObservationConfig``; 0.3, 0.3, 0.3, 0.05 are usual values of the first four.

    Args:
        brightness, contrast, saturation: factors are drawn from 1 - value to 1 + value [-].
        hue: turns are drawn from -value to value [turns, at most 0.5].
        blur: standard deviations of the Gaussian are drawn from 0 to value [px].
        state_noise: standard deviation of the noise on normalised states [-].
        noise_keys: the states that get it; empty means all.
    Raises:
        ConfigError: names the field.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    state_noise: float = 0.0
    noise_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must lie in 0..{most}, got {getattr(self, name)}")
        for name in ("blur", "state_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")

    @property
    def recolours(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))


@dataclass(frozen=True)
class ImageChange:
    """What was drawn for the images of some rows.

    Args:
        offset: (rows, 2) place of the crop, down and across, in 0..1 of the room there is.
        colour: (rows, 3, 3) of red, green and blue; None leaves colours as they are.
        brightness, contrast: (rows,) factors, with ``colour``.
        sigma: (rows,) of the blur [px]; None leaves images sharp.
    """

    offset: Tensor
    colour: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    sigma: Tensor | None = None

    @staticmethod
    def draw(
        config: AugmentationConfig, rows: int, generator: torch.Generator, device: torch.device
    ) -> ImageChange:
        """One independent change per row."""
        drawn = torch.rand(rows, 7, generator=generator, device=device)
        offset, colours, blur = drawn[:, :2], drawn[:, 2:6], drawn[:, 6]
        sigma = config.blur * blur if config.blur > 0 else None
        if not config.recolours:
            return ImageChange(offset, sigma=sigma)
        reach = (config.brightness, config.contrast, config.saturation, config.hue)
        by = (2 * colours - 1) * torch.tensor(reach, device=device)
        brightness, contrast = 1 + by[:, 0], 1 + by[:, 1]
        colour = hue_turn(by[:, 3]) @ saturation(1 + by[:, 2])
        colour = (brightness * contrast)[:, None, None] * colour
        return ImageChange(offset, colour, brightness, contrast, sigma)

    def repeat(self, times: int) -> ImageChange:
        """The same for every one of ``times`` images of each row."""
        parts = (self.offset, self.colour, self.brightness, self.contrast, self.sigma)
        return ImageChange(*(None if p is None else p.repeat_interleave(times, 0) for p in parts))  # type: ignore[arg-type]

    def recolour(self, pixels: Tensor) -> Tensor:
        """Images (rows, 3, height, width) in -1..1, to the same; in the memory layout of channels last."""
        if self.colour is None and self.sigma is None:
            return pixels
        pixels = pixels.contiguous()
        if self.colour is not None and self.brightness is not None and self.contrast is not None:
            # brightness b and contrast c: c b x + (1 - c) b mean, with x = (pixel + 1) / 2
            luma = torch.tensor(LUMA, device=pixels.device)
            mean = pixels[..., ::4, ::4].mean((2, 3)) @ luma + 1
            shift = self.brightness * (self.contrast + (1 - self.contrast) * mean) - 1
            flat = (self.colour @ pixels.flatten(2)).add_(shift[:, None, None]).clamp_(-1, 1)
            pixels = flat.view(pixels.shape)
        if self.sigma is not None:
            height, width = pixels.shape[-2:]
            across = gaussian(self.sigma, width)[:, None].transpose(-1, -2)
            pixels = gaussian(self.sigma, height)[:, None] @ pixels @ across
        return pixels.contiguous(memory_format=torch.channels_last)


def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut a part of its own out of each image.

    Args:
        images: (rows, whole height, whole width, channels).
        top, left: (rows,) first line and column of each part.
    Returns:
        (rows, height, width, channels)
    """
    parts = images.unfold(1, height, 1).unfold(2, width, 1)  # a view: (rows, tops, lefts, c, height, width)
    rows = torch.arange(len(images), device=images.device)
    return parts.permute(0, 1, 2, 4, 5, 3)[rows, top, left]


def saturation(factor: Tensor) -> Tensor:
    """(rows,) factors to (rows, 3, 3): colours nearer to (below 1) or farther from their own grey."""
    grey = torch.tensor(LUMA, device=factor.device).expand(3, 3)
    scale = factor[:, None, None]
    return scale * torch.eye(3, device=factor.device) + (1 - scale) * grey


def hue_turn(turns: Tensor) -> Tensor:
    """(rows,) turns to (rows, 3, 3): hue turned about the axis of greys, which stay; luma is kept."""
    to_yiq = torch.tensor(YIQ, device=turns.device)
    cosine, sine = torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)
    zero, one = torch.zeros_like(turns), torch.ones_like(turns)
    lines = ((one, zero, zero), (zero, cosine, -sine), (zero, sine, cosine))
    turn = torch.stack([torch.stack(line, -1) for line in lines], -2)
    turned: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return turned


def gaussian(sigma: Tensor, size: int) -> Tensor:
    """(rows,) standard deviations [px] to (rows, size, size) matrices that blur a line of ``size`` pixels.

    Their lines add up to 1, also at the border. Matrix products take less time on a CPU than convolutions
    with another kernel per image do.
    """
    place = torch.arange(size, device=sigma.device)
    fall = torch.exp(-0.5 * (place / sigma.clamp(min=1e-2)[:, None]).square())
    fall = fall * (fall > 1e-6)  # products with numbers too small to be normal take long
    weight = fall[:, (place[:, None] - place).abs()]
    weight /= weight.sum(-1, keepdim=True)
    return weight


def noisy(state: Tensor, key: str, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """A normalised state (batch, ..., features) with the noise that the config asks for."""
    if config.state_noise == 0 or (config.noise_keys and key not in config.noise_keys):
        return state
    noise = torch.randn(state.shape, generator=generator, device=state.device)
    return state + config.state_noise * noise

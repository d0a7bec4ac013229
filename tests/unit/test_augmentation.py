"""Changed images: against one pixel at a time, alike within a window, all chance from the generator."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from robopolicy.core.errors import ConfigError
from robopolicy.models.augmentation import (
    LUMA,
    AugmentationConfig,
    ImageChange,
    crop,
    gaussian,
    hue_turn,
    noisy,
    saturation,
)

STRONG = AugmentationConfig(brightness=0.4, contrast=0.4, saturation=0.5, hue=0.2, blur=1.5)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(rows: int = 3, height: int = 12, width: int = 20) -> torch.Tensor:
    """(rows, 3, height, width) in -1..1."""
    return torch.rand(rows, 3, height, width, generator=random(5)) * 2 - 1


def draw(config: AugmentationConfig, rows: int = 3, seed: int = 0) -> ImageChange:
    return ImageChange.draw(config, rows, random(seed), torch.device("cpu"))


def test_a_crop_is_a_part_of_its_own_image():
    images = torch.randint(0, 256, (5, 9, 11, 3), dtype=torch.uint8, generator=random())
    top, left = torch.tensor([0, 3, 1, 0, 2]), torch.tensor([0, 4, 0, 4, 1])
    parts = crop(images, top, left, 6, 7)
    for row, (y, x) in enumerate(zip(top.tolist(), left.tolist())):
        assert torch.equal(parts[row], images[row, y : y + 6, x : x + 7])
    whole = torch.zeros(5, dtype=torch.int64)
    assert torch.equal(crop(images, whole, whole, 9, 11), images)


def test_brightness_and_contrast_are_what_they_say():
    """In 0..1: brighter times b, then c away from the image's mean grey, cut off at black and white."""
    config = AugmentationConfig(brightness=0.4, contrast=0.4)
    change, given = draw(config), pixels().contiguous()
    changed = change.recolour(given)
    for row in range(3):
        b, c = float(change.brightness[row]), float(change.contrast[row])
        assert abs(b - 1) <= 0.4 and abs(c - 1) <= 0.4
        image = (given[row].numpy().astype(np.float64) + 1) / 2 * b
        grey = np.tensordot(LUMA, image, 1)[::4, ::4].mean()
        expected = np.clip(c * image + (1 - c) * grey, 0, 1)
        np.testing.assert_allclose((changed[row].numpy() + 1) / 2, expected, atol=2e-6)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
def test_saturation_mixes_with_grey(factor):
    colour = torch.tensor([0.8, 0.3, 0.1])
    grey = colour @ torch.tensor(LUMA)
    mixed = saturation(torch.tensor([factor]))[0] @ colour
    torch.testing.assert_close(mixed, factor * colour + (1 - factor) * grey)


def test_a_turn_of_hue_keeps_grey_and_luma():
    turns = torch.tensor([0.0, 0.1, -0.25, 0.5])
    matrices = hue_turn(turns)
    torch.testing.assert_close(matrices @ torch.ones(3), torch.ones(4, 3), atol=1e-3, rtol=0)
    colour, luma = torch.tensor([0.2, 0.5, 0.4]), torch.tensor(LUMA)
    kept = (matrices @ colour) @ luma
    torch.testing.assert_close(kept, (colour @ luma).expand(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(matrices[0], torch.eye(3), atol=1e-5, rtol=0)
    # a third of a turn takes one primary near the next; the sense is the same for all three
    for first, degrees in (((1.0, 0.0, 0.0), 120), ((0.0, 1.0, 0.0), 120), ((0.0, 0.0, 1.0), 120)):
        turned = (hue_turn(torch.tensor([1 / 3]))[0] @ torch.tensor(first)).clamp(0, 1)
        before, after = (colorsys.rgb_to_hsv(*map(float, c))[0] for c in (first, turned))
        assert abs(abs((after - before + 0.5) % 1 - 0.5) * 360 - degrees) < 45


def test_a_blur_is_a_gaussian_and_keeps_what_is_even():
    line = torch.zeros(41)
    line[20] = 1.0
    for sigma in (0.5, 1.0, 2.0):
        spread = gaussian(torch.tensor([sigma]), 41)[0] @ line
        place = torch.arange(41.0) - 20
        assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
        deviation = float((spread * place.square()).sum().sqrt())
        assert deviation == pytest.approx(sigma, rel=0.08)
    torch.testing.assert_close(gaussian(torch.tensor([0.0]), 7)[0], torch.eye(7))
    even = torch.full((3, 3, 12, 20), 0.37)
    blurred = draw(AugmentationConfig(blur=2.0)).recolour(even)
    torch.testing.assert_close(blurred, even, atol=1e-5, rtol=0)  # also at the border


def test_a_blur_acts_down_and_across_by_its_own_width():
    images = torch.zeros(2, 3, 21, 31)
    images[:, 1, 10, 15] = 1.0
    change = ImageChange(torch.zeros(2, 2), sigma=torch.tensor([0.4, 2.0]))
    sharp, soft = change.recolour(images)
    assert float(sharp[1, 10, 15]) > 0.8 > 0.1 > float(soft[1, 10, 15]) > float(soft[1, 12, 15]) > 0
    torch.testing.assert_close(soft[1, 8:13, 13:18], soft[1, 8:13, 13:18].T)
    assert (soft[0] == 0).all()


def test_all_steps_of_a_window_change_alike_and_windows_differ():
    change = draw(STRONG, rows=2)
    twice = change.repeat(3)
    for name in ("offset", "colour", "brightness", "contrast", "sigma"):
        value = getattr(twice, name).unflatten(0, (2, 3))
        assert (value == getattr(change, name)[:, None]).all()
        assert (value[0] != value[1]).any()
    assert draw(AugmentationConfig()).repeat(2).sigma is None


def test_chance_comes_from_the_generator_alone():
    first, second, other = draw(STRONG), draw(STRONG), draw(STRONG, seed=1)
    torch.manual_seed(3)  # nobody may read the global generator
    assert torch.equal(first.recolour(pixels()), second.recolour(pixels()))
    assert not torch.equal(first.recolour(pixels()), other.recolour(pixels()))
    offsets = draw(AugmentationConfig(), rows=4_000).offset
    assert offsets.min() >= 0 and offsets.max() < 1
    assert (offsets.mean(0) - 0.5).abs().max() < 0.03


def test_nothing_asked_for_changes_nothing():
    images = pixels()
    assert draw(AugmentationConfig()).recolour(images) is images
    full = draw(STRONG).recolour(images)
    assert full.shape == images.shape and full.abs().max() <= 1
    assert (full != images).any()


def test_noise_goes_to_the_states_that_are_named():
    state = torch.zeros(200, 2, 3)
    everywhere = AugmentationConfig(state_noise=0.1)
    some = AugmentationConfig(state_noise=0.1, noise_keys=("a",))
    assert noisy(state, "b", AugmentationConfig(), random()) is state
    assert noisy(state, "b", some, random()) is state
    for config, key in ((everywhere, "b"), (some, "a")):
        drawn = noisy(state, key, config, random())
        assert float(drawn.std()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("brightness", 1.1), ("contrast", -0.1), ("saturation", float("nan")), ("hue", 0.6)],
        *[("blur", -1.0), ("blur", float("inf")), ("state_noise", -0.1)],
    ],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        AugmentationConfig(**{field: value})

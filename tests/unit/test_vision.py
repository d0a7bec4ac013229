"""From bytes to keypoints: the right pixels, the right range, the right place."""

from __future__ import annotations

import pytest
import torch

from robopolicy.models.augmentation import ImageChange
from robopolicy.models.vision import SpatialSoftmax, VisionEncoder


def make(crop=0.75, seed=0) -> VisionEncoder:
    torch.manual_seed(seed)
    return VisionEncoder((8, 16), keypoints=4, crop=crop).eval()


def pictures(rows=3, height=32, width=40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, height, width, 3), dtype=torch.uint8, generator=generator)


def change(offset: tuple[float, float], rows: int = 3) -> ImageChange:
    return ImageChange(torch.tensor(offset).expand(rows, 2))


def test_bytes_in_features_out():
    encoder = make()
    rows = encoder(pictures())
    assert rows.shape == (3, encoder.features) == (3, 8)
    assert (rows.abs() <= 1).all()  # expected coordinates in the picture


def test_the_network_sees_minus_one_to_one():
    encoder, seen = make(crop=1.0), []
    encoder.stem.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder(torch.tensor([0, 255], dtype=torch.uint8).expand(1, 8, 8, 2).repeat(1, 1, 1, 2)[..., :3])
    assert seen[0].min() == -1 and seen[0].max() == 1
    assert seen[0].shape == (1, 3, 8, 8)


def test_without_an_offset_the_centre_is_cropped():
    encoder, images = make(), pictures()
    before = encoder(images)
    border = images.clone()
    border[:, :4] = border[:, -4:] = 0
    border[:, :, :5] = border[:, :, -5:] = 0
    torch.testing.assert_close(encoder(border), before, rtol=0, atol=0)
    inside = images.clone()
    inside[:, 4] = 0
    assert (encoder(inside) != before).any()


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.999, 0.999), (0.5, 0.1)])
def test_an_offset_moves_the_crop_but_keypoints_stay_in_the_whole_picture(offset):
    encoder, images = make(), pictures()
    top, left = int(offset[0] * 9), int(offset[1] * 11)  # 32 - 24 and 40 - 30 pixels of room
    cut = images[:, top : top + 24, left : left + 30]
    within = make(crop=1.0)(cut)  # -1..1 over the 30 x 24 pixels that were cut
    across, down = within.chunk(2, dim=-1)
    pixel_x, pixel_y = left + (across + 1) / 2 * 29, top + (down + 1) / 2 * 23
    expected = torch.cat([2 * pixel_x / 39 - 1, 2 * pixel_y / 31 - 1], dim=-1)
    torch.testing.assert_close(encoder(images, change(offset)), expected)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 10), (4, 5), (8, 2), (8, 10)])
def test_spatial_softmax_finds_a_bright_dot(row, column):
    pool = SpatialSoftmax(1, 1)
    with torch.no_grad():
        pool.to_keypoints.weight.fill_(1.0)
        pool.to_keypoints.bias.zero_()
    image = torch.zeros(1, 1, 9, 11)
    image[0, 0, row, column] = 50.0
    x, y = pool(image)[0].tolist()
    assert x == pytest.approx(2 * column / 10 - 1, abs=1e-5)
    assert y == pytest.approx(2 * row / 8 - 1, abs=1e-5)


def test_every_weight_learns():
    encoder = make().train()
    encoder(pictures(), change((0.3, 0.7))).square().sum().backward()
    # a bias before a softmax over all pixels shifts every logit alike: it cannot matter
    moved = {name: float(weight.grad.abs().max()) for name, weight in encoder.named_parameters()}
    assert moved.pop("pool.to_keypoints.bias") < 1e-6
    assert min(moved.values()) > 1e-6, moved

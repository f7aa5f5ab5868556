"""two_thirds: by hand, and as PyTorch does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unscene.data.tfrecord.downscale import downscale_bilinear, downscale_nearest
from unscene.errors import ShapeError


def test_three_pixels_become_two():  # (3 a + b) / 4 and (b + 3 c) / 4 along both axes: 16ths, halves up
    image = np.array([[0, 16, 32], [64, 64, 64], [255, 255, 8]], np.uint8)[..., None]
    found = downscale_bilinear(image)[..., 0]
    rows = [(0 * 3 + 64) / 4, (16 * 3 + 64) / 4, (32 * 3 + 64) / 4], [(64 + 765) / 4, (64 + 765) / 4, (64 + 24) / 4]
    assert rows == ([16, 28, 40], [207.25, 207.25, 22])
    # 19, 37; 207.25, 68.3125
    assert found.tolist() == [[19, 37], [207, 68]]


def test_a_half_is_rounded_up():
    image = np.zeros((3, 3, 1), np.uint8)
    image[0, 1] = 200  # 3 * 1 sixteenths of 200 are 37.5
    assert downscale_bilinear(image)[..., 0].tolist() == [[38, 38], [0, 0]]


def test_the_extremes_and_the_channels_stay():
    image = np.zeros((6, 9, 3), np.uint8)
    image[..., 1], image[..., 2] = 255, 7
    found = downscale_bilinear(image)
    assert found.shape == (4, 6, 3)
    assert found.dtype == np.uint8
    assert (found == [0, 255, 7]).all()


def test_bilinear_is_pytorchs_without_low_pass():
    image = np.random.default_rng(0).integers(0, 256, (192, 96, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = F.interpolate(pixels, size=(128, 64), mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    assert np.abs(downscale_bilinear(image) - expected).max() <= 0.5


def test_nearest_is_pytorchs_exact_one():
    maps = np.random.default_rng(0).integers(0, 256, (2, 5, 12, 6), np.uint8)
    expected = F.interpolate(torch.from_numpy(maps), size=(8, 4), mode="nearest-exact").numpy()
    assert np.array_equal(downscale_nearest(maps), expected)
    assert downscale_nearest(np.arange(9, dtype=np.uint8).reshape(3, 3)).tolist() == [[0, 2], [6, 8]]


def test_other_sizes_are_refused():
    with pytest.raises(ShapeError, match="must be multiples of 3, but are 6 and 7"):
        downscale_bilinear(np.zeros((6, 7, 3), np.uint8))
    with pytest.raises(ShapeError, match="but are 4 and 6"):
        downscale_nearest(np.zeros((4, 6), np.uint8))

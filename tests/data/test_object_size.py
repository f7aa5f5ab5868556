"""The diameter of the blobs of an image."""

import numpy as np
import pytest

from unscene.data.object_size import propose_object_size
from unscene.errors import DataError


def disks(diameter, noise=0.0, size=256, colour=(230, 60, 120), ground=90, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image = np.full((size, size, 3), ground, np.float64)
    centres = []
    for y, x in rng.integers(0, size, (300, 2)):
        if all((y - b) ** 2 + (x - a) ** 2 > (1.3 * diameter) ** 2 for b, a in centres):
            centres.append((y, x))
            image[(rows - y) ** 2 + (columns - x) ** 2 <= diameter**2 / 4] = colour
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("diameter", [8, 16, 30])
@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_diameter_of_disks(diameter, noise):
    size = propose_object_size([disks(diameter, noise)])
    assert size.diameter == pytest.approx(diameter, rel=0.2)


def test_dark_disks_count_as_bright_ones():
    image = disks(16)
    dark, bright = propose_object_size([255 - image]), propose_object_size([image])
    assert dark.diameter == pytest.approx(bright.diameter, rel=0.2)  # one scale


def test_small_objects_of_a_large_image_that_is_mostly_empty():
    image = np.full((1600, 2400, 3), 90, np.uint8)
    image[1300:1556, 2100:2356] = disks(16)
    assert propose_object_size([image]).diameter == pytest.approx(16, rel=0.2)


def test_large_image_is_reduced_and_measured_in_its_own_pixels():
    image = disks(16).repeat(4, axis=0).repeat(4, axis=1)
    assert propose_object_size([image]).diameter == pytest.approx(64, rel=0.25)


def test_sure_of_many_equal_blobs_only():
    assert propose_object_size([disks(12)]).is_sure
    assert not propose_object_size([disks(60, size=128)]).is_sure


def test_plain_image_has_no_object():
    with pytest.raises(DataError, match="no object of a clear size"):
        propose_object_size([np.full((64, 64, 3), 90, np.uint8)])


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1)])
def test_a_strip_has_no_object(size):
    with pytest.raises(DataError, match="no object of a clear size"):
        propose_object_size([np.zeros((*size, 3), np.uint8)])

"""occluder: where the square lies, that it is background, and that its draws are its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unscene.data.hashed_random import uniform_draws
from unscene.data.occluder import centred, occlude


def occluded(count: int, size: int, share: float, seed: int = 0, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, masks = np.zeros((count, size, size, 3), np.uint8), np.ones((count, size, size), np.uint8)
    occlude(images, masks, seed, np.arange(first, first + count), share, 128)
    return images, masks


def corners(masks: np.ndarray) -> np.ndarray:
    """[B, 2] x and y of the first hidden column and row."""
    hidden = masks == 0
    return np.stack([hidden.any(axis=1).argmax(axis=1), hidden.any(axis=2).argmax(axis=1)], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(16, 70),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    index=st.integers(0, 10**6),
)
def test_one_grey_square_of_background_lies_in_the_image(size, share, seed, index):
    images, masks = occluded(3, size, share, seed, index)
    side = round(share * size)
    for image, mask in zip(images, masks, strict=True):
        rows, columns = np.nonzero(mask == 0)
        assert len(rows) == side**2
        if side:
            assert (np.ptp(rows), np.ptp(columns)) == (side - 1, side - 1)
        assert np.array_equal(image, 128 * np.stack([mask == 0] * 3, axis=-1))


def test_its_side_is_the_share_of_the_images():
    assert (occluded(4, 64, 0.4)[1] == 0).sum(axis=(1, 2)).tolist() == [26 * 26] * 4  # 25.6
    assert (occluded(4, 64, 1.0)[1] == 0).all()
    assert (occluded(4, 64, 0.0)[1] == 1).all()


def test_every_place_is_as_likely_as_the_others():
    places = corners(occluded(4000, 16, 0.75)[1])  # 12 pixels: corners at 0 .. 4
    for axis in range(2):
        assert np.bincount(places[:, axis]) == pytest.approx([800] * 5, abs=100)
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.05


def test_a_scene_has_its_square_alone_or_in_a_batch_and_another_in_another_data_set():
    masks = occluded(20, 32, 0.4)[1]
    for index in (0, 7, 19):
        assert np.array_equal(occluded(1, 32, 0.4, first=index)[1][0], masks[index])
    assert (corners(occluded(20, 32, 0.4, seed=1)[1]) != corners(masks)).any(axis=1).sum() > 15


def test_its_draws_are_of_no_data_sets_stream():
    places = corners(occluded(50, 64, 0.25)[1]) / 49
    drawn = uniform_draws(0, np.arange(50), 60)  # all that a scene of five sprites is drawn from
    assert not (np.abs(drawn[:, :, None] - places[:, None]).max(axis=0) < 0.05).any()


def test_the_middle_of_a_view():
    assert centred((64.0, 29.0, 256.0, 221.0), 1.0) == (64.0, 29.0, 256.0, 221.0)
    assert centred((64.0, 29.0, 256.0, 221.0), 0.5) == (112.0, 77.0, 208.0, 173.0)

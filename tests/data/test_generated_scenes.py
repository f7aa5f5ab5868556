"""generated_scenes: the published splitmix64 sequence, independent draws, and where the occluder lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unscene.data.generated_scenes import central_part, occlude, splitmix64, uniform_draws

GOLDEN = 0x9E3779B97F4A7C15


def test_splitmix64_gives_the_reference_sequence():
    # the first five outputs of Vigna's splitmix64.c with the state 1234567
    states = np.array([(1234567 + step * GOLDEN) % 2**64 for step in range(5)], np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(states).tolist() == expected


def test_more_draws_keep_the_first_ones():
    indices = np.arange(5)
    assert np.array_equal(uniform_draws(3, indices, 4), uniform_draws(3, indices, 9)[:, :4])


def test_a_sample_does_not_depend_on_the_others():
    assert np.array_equal(uniform_draws(3, np.array([7, 2, 7]), 4), uniform_draws(3, np.arange(8), 4)[[7, 2, 7]])


def test_draws_are_uniform_and_unrelated():
    draws = uniform_draws(0, np.arange(20000), 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(draws[:, draw], bins=10, range=(0, 1))[0] for draw in range(4)])
    chi_square = ((counts - 2000) ** 2 / 2000).sum(axis=1)
    assert chi_square.max() < 27.9  # 9 degrees of freedom, p = .001
    neighbours = np.column_stack([draws[:-1], draws[1:]])  # each draw against the others, and the next sample's
    between = np.corrcoef(neighbours.T) - np.eye(8)
    assert np.abs(between).max() < 0.03  # four standard errors


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_every_seed_gives_its_own_stream(seed):
    other = (seed + 1) % 2**64
    assert not np.isin(uniform_draws(seed, np.arange(100), 8), uniform_draws(other, np.arange(100), 8)).any()


def test_no_sample_gives_no_draw():
    assert uniform_draws(0, np.array([], np.int64), 3).shape == (0, 3)


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
def test_occluder_is_one_grey_square_of_background_in_the_image(size, share, seed, index):
    images, masks = occluded(3, size, share, seed, index)
    side = round(share * size)
    for image, mask in zip(images, masks, strict=True):
        rows, columns = np.nonzero(mask == 0)
        assert len(rows) == side**2
        if side:
            assert (np.ptp(rows), np.ptp(columns)) == (side - 1, side - 1)
        assert np.array_equal(image, 128 * np.stack([mask == 0] * 3, axis=-1))


def test_side_is_a_share_of_the_image_side():
    assert (occluded(4, 64, 0.4)[1] == 0).sum(axis=(1, 2)).tolist() == [26 * 26] * 4  # 25.6
    assert (occluded(4, 64, 1.0)[1] == 0).all()
    assert (occluded(4, 64, 0.0)[1] == 1).all()


def test_all_positions_are_equally_likely():
    positions = corners(occluded(4000, 16, 0.75)[1])  # 12 pixels: corners at 0 .. 4
    for axis in range(2):
        assert np.bincount(positions[:, axis]) == pytest.approx([800] * 5, abs=100)
    assert abs(np.corrcoef(positions.T)[0, 1]) < 0.05


def test_occluder_depends_on_seed_and_index_only():
    masks = occluded(20, 32, 0.4)[1]
    for index in (0, 7, 19):
        assert np.array_equal(occluded(1, 32, 0.4, first=index)[1][0], masks[index])
    assert (corners(occluded(20, 32, 0.4, seed=1)[1]) != corners(masks)).any(axis=1).sum() > 15


def test_occluder_draws_differ_from_the_scene_draws():
    positions = corners(occluded(50, 64, 0.25)[1]) / 49
    draws = uniform_draws(0, np.arange(50), 60)  # all draws of a scene of five sprites
    assert not (np.abs(draws[:, :, None] - positions[:, None]).max(axis=0) < 0.05).any()


def test_central_part_of_a_view():
    assert central_part((64.0, 29.0, 256.0, 221.0), 1.0) == (64.0, 29.0, 256.0, 221.0)
    assert central_part((64.0, 29.0, 256.0, 221.0), 0.5) == (112.0, 77.0, 208.0, 173.0)

"""Tiles of a large image, and the objects of all tiles merged."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unscene.errors import RecipeError
from unscene.inference.tiles import TileObject, cut_tile, merge_tiles, tile_objects, tile_windows


def disks(height, width, radius, count, seed):
    """A label map with disks that don't touch; some are cut by the border of the image."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    rows, columns = np.mgrid[:height, :width]
    centres = []
    for y, x in rng.integers(0, (height, width), (count * 20, 2)):
        if all((y - b) ** 2 + (x - a) ** 2 > (2 * radius + 2) ** 2 for b, a in centres) and len(centres) < count:
            centres.append((y, x))
            labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = len(centres)
    return labels


def tiles_of(labels, tile, overlap, score=1.0):
    """What a perfect model sees: each tile's own label map, with labels from 1 in each tile."""
    for window in tile_windows(*labels.shape, tile, overlap):
        names, local = np.unique(cut_tile(labels, window), return_inverse=True)
        local = local.reshape(tile, tile) + int(names[0] > 0)
        answers = [(label, score, None) for label in np.unique(local).tolist() if label]
        yield from tile_objects(local, answers, window, labels.shape)


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(a)) == len(np.unique(b)) and ((pairs[0] == 0) == (pairs[1] == 0)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(2, 60), st.data())
def test_windows_cover_each_pixel_and_overlap(height, width, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    windows = tile_windows(height, width, tile, overlap)
    covered = np.zeros((height, width), int)
    for x1, y1, x2, y2 in windows:
        assert x2 - x1 == y2 - y1 == tile
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1 or len(windows) > 1
    assert covered.min() >= 1
    starts = sorted({x1 for x1, _, _, _ in windows})
    assert all(tile - (b - a) >= overlap for a, b in pairwise(starts))


@pytest.mark.parametrize(("tile", "overlap"), [(64, -1), (64, 64), (64, 100), (0, 0), (-5, 0)])
def test_overlap_outside_the_tile_is_refused(tile, overlap):
    with pytest.raises(RecipeError, match=f"they are {tile} and {overlap}"):
        tile_windows(200, 200, tile, overlap)


def test_tile_beyond_a_small_image_mirrors_it():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert cut_tile(image, (0, 0, 4, 4)).tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [0, 1, 2, 2]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(60, 150), st.integers(60, 150))
def test_perfect_tiles_give_the_truth(seed, height, width):
    labels = disks(height, width, 6, 30, seed)
    merged = merge_tiles(tiles_of(labels, 40, 20), height, width)
    assert same_partition(merged.labels, labels)
    assert len(merged.objects) == len(np.unique(labels)) - 1


def test_object_larger_than_the_overlap_is_joined():
    labels = np.zeros((60, 300), np.int32)
    labels[20:40, 10:290] = 1
    merged = merge_tiles(tiles_of(labels, 64, 16), 60, 300)
    assert same_partition(merged.labels, labels)


def test_image_smaller_than_a_tile_has_one_tile():
    labels = disks(20, 31, 5, 3, 0)
    merged = merge_tiles(tiles_of(labels, 64, 32), 20, 31)
    assert same_partition(merged.labels, labels)


def test_no_object_gives_background():
    merged = merge_tiles([], 5, 7)
    assert merged.labels.shape == (5, 7)
    assert not merged.labels.any()
    assert merged.objects == []


def square(y, x, side, window, cut, score):
    return TileObject(y, x, np.ones((side, side), bool), score, None, window, cut)


def test_object_nearest_to_its_tile_s_middle_is_kept():
    left, right = (0, 0, 40, 40), (20, 0, 60, 40)
    merged = merge_tiles([square(15, 18, 10, left, False, 0.1), square(15, 19, 10, right, False, 0.9)], 40, 60)
    assert [item.score for item in merged.objects] == [0.1]
    assert merged.labels.sum() == 100


def test_cut_object_yields_to_the_complete_one():
    left, right = (0, 0, 40, 40), (20, 0, 60, 40)
    merged = merge_tiles([square(10, 34, 6, left, True, 0.9), square(8, 32, 10, right, False, 0.1)], 40, 60)
    assert [item.score for item in merged.objects] == [0.1]


def test_neighbours_that_overlap_a_little_stay_apart():
    window = (0, 0, 40, 40)
    merged = merge_tiles([square(10, 10, 10, window, False, 0.9), square(10, 19, 10, window, False, 0.8)], 40, 40)
    assert np.bincount(merged.labels.ravel()).tolist()[1:] == [100, 90]

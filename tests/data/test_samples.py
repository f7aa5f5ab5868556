"""samples: batches within the data set, ranges by hand, and boxes against scikit-image's regionprops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import regionprops

from unscene.data.samples import checked_indices, resolve_range
from unscene.errors import DataError, ShapeError
from unscene.scene import boxes_of_labels


def test_indices_keep_their_order_and_duplicates():
    found = checked_indices(np.array([4, 0, 4], np.uint8), 5)
    assert (found.dtype, found.tolist()) == (np.int64, [4, 0, 4])
    assert checked_indices([], 5).shape == (0,)


@pytest.mark.parametrize("index", [-1, 5, 2**40])
def test_an_index_outside_is_named(index):
    with pytest.raises(DataError, match=f"sample {index} was asked for, but there are 5: give indices 0 to 4"):
        checked_indices([0, index], 5)


@pytest.mark.parametrize(
    ("indices", "message"), [([0.5], "whole numbers, but are float64"), ([[0]], "axes"), (3, "axes")]
)
def test_indices_that_are_not_one_row_of_whole_numbers_are_refused(indices, message):
    with pytest.raises(ShapeError, match=message):
        checked_indices(indices, 5)


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [
        (0, 0, range(10)),
        (3, 0, range(3, 10)),
        (3, 2, range(3, 5)),
        (0, -4, range(6)),
        (2, -4, range(2, 6)),
        (-4, 3, range(6, 9)),
        (-4, 0, range(6, 10)),
        (-4, -1, range(6, 9)),
        (9, 1, range(9, 10)),
    ],
)
def test_ranges_of_ten_by_hand(first, count, expected):
    assert resolve_range(first, count, 10, "FILE has 10 scenes") == expected


@pytest.mark.parametrize(("first", "count"), [(0, 11), (10, 0), (10, 1), (-11, 1), (-2, 3), (0, -10), (3, -7), (9, 2)])
def test_too_few_samples_are_named(first, count):
    message = f"FILE has 10 scenes, too few for first {first} and count {count}: lower data.count"
    with pytest.raises(DataError, match=message):
        resolve_range(first, count, 10, "FILE has 10 scenes")


def test_an_empty_data_set_has_no_range():
    with pytest.raises(DataError, match="too few"):
        resolve_range(0, 0, 0, "FILE has 0 scenes")


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 20))
def test_a_range_is_within_the_data_and_never_empty(first, count, size):
    try:
        found = resolve_range(first, count, size, "data")
    except DataError:
        return
    assert 0 <= found.start < found.stop <= size
    assert found.start == first % size
    assert count <= 0 or len(found) == count


def test_a_box_ends_one_past_the_last_pixel():
    mask = np.zeros((1, 6, 8), np.uint8)
    mask[0, 2:5, 3:4] = 1
    mask[0, 0, 0] = 2
    mask[0, 5, 7] = 2
    assert boxes_of_labels(mask, 3)[0].tolist() == [[3, 2, 4, 5], [0, 0, 8, 6], [0, 0, 0, 0]]


@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(0, 20)))
def test_boxes_are_those_of_regionprops(mask):
    boxes = boxes_of_labels(mask, 20)
    expected = np.zeros((len(mask), 20, 4), np.float32)
    for scene, labels in enumerate(mask):
        for region in regionprops(labels):
            y1, x1, y2, x2 = region.bbox
            expected[scene, region.label - 1] = x1, y1, x2, y2
    assert np.array_equal(boxes, expected)


def test_the_largest_label_has_a_box():
    mask = np.full((1, 2, 3), 255, np.uint8)
    boxes = boxes_of_labels(mask, 255)
    assert boxes[0, 254].tolist() == [0, 0, 3, 2]
    assert not boxes[0, :254].any()


def test_labels_above_num_objects_are_ignored():
    mask = np.array([[[1, 2, 3]]], np.uint8)
    assert boxes_of_labels(mask, 2)[0].tolist() == [[0, 0, 1, 1], [1, 0, 2, 1]]


def test_all_background_is_all_zero_rows():
    assert not boxes_of_labels(np.zeros((2, 4, 4), np.uint8), 5).any()


@pytest.mark.parametrize(("batch", "labels"), [(0, 5), (2, 0)])
def test_no_scene_and_no_label_give_an_empty_array(batch, labels):
    boxes = boxes_of_labels(np.zeros((batch, 4, 4), np.uint8), labels)
    assert boxes.shape == (batch, labels, 4)
    assert boxes.dtype == np.float32


def test_another_type_or_shape_is_refused():
    with pytest.raises(ShapeError, match="whole numbers, but are float32"):
        boxes_of_labels(np.zeros((1, 4, 4), np.float32), 5)
    with pytest.raises(ShapeError, match="labels must have the axes"):
        boxes_of_labels(np.zeros((4, 4), np.uint8), 5)

"""label_boxes: worked by hand, against scikit-image's regionprops, and with more labels than one pass holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import regionprops

from unscene.data.label_boxes import boxes_of_labels
from unscene.errors import ShapeError


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


def test_labels_above_the_asked_number_are_left_out():
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
    with pytest.raises(ShapeError, match="uint8, but are int64"):
        boxes_of_labels(np.zeros((1, 4, 4), np.int64), 5)
    with pytest.raises(ShapeError, match="labels must have the axes"):
        boxes_of_labels(np.zeros((4, 4), np.uint8), 5)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label, regionprops

from unscene.errors import ShapeError
from unscene.ops.components_numpy import connected_boxes


@given(st.integers(0, 100_000), st.sampled_from([(1, 1), (1, 7), (6, 1), (5, 9), (12, 12)]), st.floats(0, 1))
def test_connected_boxes_are_those_of_scikit_image(seed, size, density):
    planes = np.random.default_rng(seed).random((3, *size)) < density
    plane, boxes = connected_boxes(planes)
    expected = [
        (index, region.bbox[1], region.bbox[0], region.bbox[3], region.bbox[2])
        for index in range(len(planes))
        for region in regionprops(label(planes[index]))
    ]
    assert sorted((int(index), *box) for index, box in zip(plane, boxes.tolist(), strict=True)) == sorted(expected)
    assert (np.diff(plane) >= 0).all()


def test_parts_that_meet_only_further_down_are_one():
    u_shape = np.array([[[1, 0, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1]]], dtype=bool)
    plane, boxes = connected_boxes(u_shape)
    assert plane.tolist() == [0, 0, 0]
    assert sorted(boxes.tolist()) == [[0, 0, 3, 3], [4, 0, 5, 1], [4, 2, 5, 3]]


def test_parts_come_in_the_order_of_their_first_pixels():
    planes = np.array([[[0, 0, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 0]], [[1, 0, 0, 1, 0]] * 3], dtype=bool)
    plane, boxes = connected_boxes(planes)
    assert plane.tolist() == [0, 0, 0, 1, 1]
    assert boxes.tolist() == [[4, 0, 5, 2], [0, 1, 1, 2], [2, 1, 3, 3], [0, 0, 1, 3], [3, 0, 4, 3]]


def test_other_axes_are_refused():
    with pytest.raises(ShapeError, match="planes"):
        connected_boxes(np.zeros((4, 4), dtype=bool))

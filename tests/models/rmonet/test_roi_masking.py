from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unscene.errors import ShapeError
from unscene.models.rmonet.roi_masking import inside_boxes, roi_mask


def touches(box: np.ndarray, row: int, column: int, stride: int) -> bool:
    """Whether a box of some area covers any part of a cell."""
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return False
    across = min(x2, (column + 1) * stride) > max(x1, column * stride)
    return across and min(y2, (row + 1) * stride) > max(y1, row * stride)


def ternary_by_cell(box: np.ndarray, size: tuple[int, int], stride: int, expand: float) -> np.ndarray:
    """S4Net's definition: 1 in the region, -1 in the enlarged region around it, 0 in the rest, cell after cell."""
    side = box[2:] - box[:2]
    enlarged = np.concatenate([box[:2] - expand * side, box[2:] + expand * side])
    answer = np.zeros(size)
    for row, column in np.ndindex(size):
        if touches(box, row, column, stride):
            answer[row, column] = 1
        elif side.min() > 0 and touches(enlarged, row, column, stride):
            answer[row, column] = -1
    return answer


@st.composite
def boxes_in_and_off_the_grid(draw: st.DrawFn) -> np.ndarray:
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    boxes = noise.uniform(-20, 60, (2, 3, 4))
    if draw(st.booleans()):
        boxes = boxes.round()
    if draw(st.booleans()):
        boxes = np.concatenate([boxes[..., :2], boxes[..., :2] + noise.uniform(0, 40, (2, 3, 2)).round()], axis=-1)
    return boxes


@settings(deadline=None)
@given(
    boxes=boxes_in_and_off_the_grid(),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    stride=st.sampled_from([1, 2, 8, 32]),
    expand=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_the_map_is_s4nets(boxes, size, stride, expand):
    maps = roi_mask(torch.from_numpy(boxes), size, stride, expand)
    assert maps.dtype == torch.float64
    assert maps.shape == (2, 3, 1, *size)
    for b, n in np.ndindex(2, 3):
        np.testing.assert_array_equal(maps[b, n, 0].numpy(), ternary_by_cell(boxes[b, n], size, stride, expand))


def test_a_ring_of_three_tenths_by_hand():
    """A box of 10 pixels: its ring is 3 wide. Rows and columns of one cell a pixel."""
    line = roi_mask(torch.tensor([[[5.0, 0, 15, 20]]], dtype=torch.float64), (20, 20))[0, 0, 0, 10]
    assert line.tolist() == [0] * 2 + [-1] * 3 + [1] * 10 + [-1] * 3 + [0] * 2


def test_the_ring_is_cut_at_the_border_and_not_lost():
    """At the top left corner the ring goes on at the right and below (S4Net's public code loses it)."""
    maps = roi_mask(torch.tensor([[[0.0, 0, 4, 4]]]), (8, 8), expand=0.5)[0, 0, 0]
    expected = torch.zeros(8, 8)
    expected[:6, :6] = -1
    expected[:4, :4] = 1
    assert torch.equal(maps, expected)


def test_a_small_box_is_not_lost_on_a_coarse_grid():
    maps = roi_mask(torch.tensor([[[9.0, 9, 11, 11]]]), (8, 8), stride=8, expand=0.0)[0, 0, 0]
    assert maps.nonzero().tolist() == [[1, 1]]


@pytest.mark.parametrize("box", [[0.0, 0, 0, 0], [5, 5, 5, 9], [100, 100, 120, 120], [9, 9, 3, 3]])
def test_a_box_without_area_or_image_shows_nothing(box):
    assert not roi_mask(torch.tensor([[box]]), (8, 8)).any()


def test_no_boxes_give_no_maps():
    assert roi_mask(torch.zeros(2, 0, 4), (4, 5)).shape == (2, 0, 1, 4, 5)


def test_inside_counts_the_widened_box():
    wide = inside_boxes(torch.tensor([[[4.0, 4, 8, 8]]]), (12, 12), expand=0.25)[0, 0, 0]
    assert wide.dtype == torch.bool
    assert wide.nonzero().amin(dim=0).tolist() == [3, 3]
    assert wide.nonzero().amax(dim=0).tolist() == [8, 8]
    assert wide.sum() == 36


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5)])
def test_boxes_of_other_axes_are_refused(shape):
    with pytest.raises(ShapeError, match="boxes"):
        roi_mask(torch.zeros(shape), (4, 4))

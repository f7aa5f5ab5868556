from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image

from unscene.errors import ShapeError
from unscene.ops.boxes import clip_boxes, decode_boxes, encode_boxes, pairwise_iou


def random_boxes(*axes: int, seed: int = 0, side: float = 64.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*axes, 2, generator=generator, dtype=torch.float64) * side
    size = torch.rand(*axes, 2, generator=generator, dtype=torch.float64) * side / 2 + 1
    return torch.cat([corner, corner + size], dim=-1)


def test_deltas_of_a_box_shifted_by_half_a_side_and_twice_as_high():
    anchor = torch.tensor([0.0, 0.0, 10.0, 20.0])
    box = torch.tensor([5.0, 0.0, 15.0, 40.0])
    assert encode_boxes(box, anchor).tolist() == pytest.approx([0.5, 0.5, 0.0, math.log(2)])


def test_an_anchor_encodes_itself_as_zero():
    anchors = random_boxes(7)
    assert_close(encode_boxes(anchors, anchors), torch.zeros(7, 4, dtype=torch.float64))


def test_encoding_is_that_of_torchvision():
    boxes, anchors = random_boxes(50, seed=1), random_boxes(50, seed=2)
    expected = BoxCoder((1.0, 1.0, 1.0, 1.0)).encode_single(boxes, anchors)
    assert_close(encode_boxes(boxes, anchors), expected, atol=1e-6, rtol=0)


def test_decoding_is_that_of_torchvision_beyond_the_clip_too():
    anchors = random_boxes(50, seed=1)
    deltas = 4 * torch.randn(50, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert (deltas[:, 2:] > math.log(1000 / 16)).any()
    expected = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(deltas, anchors)
    assert_close(decode_boxes(deltas, anchors), expected, atol=1e-6, rtol=1e-12)


@given(st.integers(0, 10_000))
def test_decoding_undoes_encoding(seed):
    boxes, anchors = random_boxes(2, 3, seed=seed), random_boxes(3, seed=seed + 1)
    assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)


def test_anchors_broadcast_over_images():
    deltas = torch.randn(2, 5, 4, dtype=torch.float64)
    anchors = random_boxes(5)
    decoded = decode_boxes(deltas, anchors)
    assert_close(decoded[1], decode_boxes(deltas[1], anchors))


def test_decoding_passes_gradients_to_the_deltas():
    deltas = torch.zeros(3, 4, requires_grad=True)
    decode_boxes(deltas, random_boxes(3).float()).square().sum().backward()
    assert (deltas.grad != 0).all()


def test_iou_by_hand():
    first = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    second = torch.tensor([[2.0, 0.0, 6.0, 4.0], [4.0, 0.0, 8.0, 4.0]])  # half of it; touching only
    assert_close(pairwise_iou(first, second), torch.tensor([[8 / 24, 0.0], [0.0, 0.0]]))


def test_iou_is_that_of_torchvision_for_every_group():
    first, second = random_boxes(3, 20, seed=1), random_boxes(3, 30, seed=2)
    expected = torch.stack([box_iou(a, b) for a, b in zip(first, second, strict=True)])
    assert_close(pairwise_iou(first, second), expected, atol=1e-6, rtol=0)
    assert_close(pairwise_iou(first[0], second)[2], box_iou(first[0], second[2]), atol=1e-6, rtol=0)


def test_boxes_without_area_overlap_nothing_not_even_themselves():
    boxes = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0], [3.0, 3.0, 1.0, 1.0], [0.0, 0.0, 5.0, 5.0]])
    expected = torch.zeros(4, 4)
    expected[3, 3] = 1
    assert torch.equal(pairwise_iou(boxes, boxes), expected)


def test_iou_of_no_boxes_has_no_rows():
    assert pairwise_iou(torch.zeros(2, 0, 4), torch.zeros(2, 3, 4)).shape == (2, 0, 3)


def test_iou_changes_neither_of_its_inputs_and_has_a_right_gradient():
    first, second = random_boxes(3, seed=1).requires_grad_(), random_boxes(4, seed=2)
    before = first.detach().clone()
    assert torch.autograd.gradcheck(pairwise_iou, (first, second))
    assert torch.equal(first.detach(), before)


def test_clipping_is_that_of_torchvision():
    boxes = random_boxes(2, 40) * 2 - 40
    assert torch.equal(clip_boxes(boxes, height=30, width=50), clip_boxes_to_image(boxes, (30, 50)))


def test_a_box_outside_the_image_has_no_area_once_clipped():
    clipped = clip_boxes(torch.tensor([70.0, -9.0, 80.0, -1.0]), height=32, width=64)
    assert clipped.tolist() == [64, 0, 64, 0]


def test_boxes_with_other_than_four_numbers_are_refused():
    good, bad = torch.ones(3, 4), torch.ones(3, 5)
    for call in (
        lambda: encode_boxes(bad, good),
        lambda: decode_boxes(good, bad),
        lambda: clip_boxes(bad, 8, 8),
        lambda: pairwise_iou(good, bad),
        lambda: pairwise_iou(torch.ones(4), good),
    ):
        with pytest.raises(ShapeError, match="must have the axes"):
            call()

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from unscene.errors import ShapeError
from unscene.ops import boxes as boxes_module
from unscene.ops.boxes import batched_nms, clip_boxes, decode_boxes, encode_boxes, pairwise_iou


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


def one_group_after_another(boxes, scores, valid, threshold):
    keep = torch.zeros_like(valid)
    for group in range(len(boxes)):
        candidates = valid[group].nonzero()[:, 0]
        kept = nms(boxes[group, candidates], scores[group, candidates], threshold)
        keep[group, candidates[kept]] = True
    return keep


def random_groups(groups: int, boxes: int, seed: int, whole: bool):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(groups, boxes, 2, generator=generator) * 20
    size = torch.rand(groups, boxes, 2, generator=generator) * 10 + 4
    scores = torch.rand(groups, boxes, generator=generator)
    if whole:  # whole numbers make overlaps of exactly the threshold, and few scores make ties
        corner, size, scores = corner.round(), size.round(), (scores * 4).round()
    valid = torch.rand(groups, boxes, generator=generator) > 0.2
    return torch.cat([corner, corner + size], -1), scores, valid


def kept_by(way: str, *inputs) -> torch.Tensor:
    """`batched_nms` as on a CPU, without reading a value, or by its definition."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNSCENE_PLAIN", str(int(way == "plain")))
        patch.setattr(boxes_module, "host_may_read", lambda _: way == "read")
        return batched_nms(*inputs)


WAYS = pytest.mark.parametrize("way", ["read", "unread", "plain"])


@WAYS
@settings(deadline=None)
@given(
    st.integers(1, 5), st.integers(0, 40), st.integers(0, 100_000), st.booleans(), st.sampled_from([0.3, 0.5, 0.6, 0.7])
)
def test_nms_keeps_what_torchvision_keeps(way, groups, boxes, seed, whole, threshold):
    inputs = random_groups(groups, boxes, seed, whole)
    assert torch.equal(kept_by(way, *inputs, threshold), one_group_after_another(*inputs, threshold))


@WAYS
@pytest.mark.parametrize("length", [7, 8, 9, 20, 100])
def test_the_longest_chain_of_suppressions_is_followed_to_its_end(way, length):
    """Each box overlaps its two neighbours alone: the last is kept or not as all before it decide."""
    left = 4.0 * torch.arange(length)
    chain = torch.stack([left, 0 * left, left + 6, 0 * left + 6], dim=-1)  # neighbours: IoU 2/10
    keep = kept_by(way, chain[None], -left[None], torch.ones(1, length, dtype=torch.bool), 0.1)
    assert keep[0].tolist() == [index % 2 == 0 for index in range(length)]


@WAYS
def test_nms_of_many_groups_keeps_what_torchvision_keeps(way):
    inputs = random_groups(groups=40, boxes=100, seed=0, whole=False)
    keep = kept_by(way, *inputs, 0.3)
    assert torch.equal(keep, one_group_after_another(*inputs, 0.3))
    assert 0 < keep.sum() < inputs[2].sum()


@WAYS
def test_a_suppressed_box_suppresses_nothing(way):
    chain = torch.tensor([[[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [12, 0, 22, 10]]])  # neighbours: IoU 6/14
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    keep = kept_by(way, chain, scores, torch.ones(1, 4, dtype=torch.bool), 0.4)
    assert keep.tolist() == [[True, False, True, False]]


@WAYS
def test_an_overlap_of_exactly_the_threshold_is_allowed(way):
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 2]]])  # IoU 1/2
    scores, valid = torch.tensor([[0.9, 0.8]]), torch.ones(1, 2, dtype=torch.bool)
    assert kept_by(way, boxes, scores, valid, 0.5).tolist() == [[True, True]]
    assert kept_by(way, boxes, scores, valid, 0.49).tolist() == [[True, False]]


@WAYS
def test_first_of_equal_scores_is_kept(way):
    boxes = torch.tensor([[0.0, 0, 4, 4]]).expand(1, 3, 4)
    keep = kept_by(way, boxes, torch.full((1, 3), 0.5), torch.tensor([[False, True, True]]), 0.5)
    assert keep.tolist() == [[False, True, False]]


def test_groups_do_not_see_each_other():
    boxes = torch.tensor([0.0, 0, 4, 4]).expand(3, 1, 4)
    assert batched_nms(boxes, torch.rand(3, 1), torch.ones(3, 1, dtype=torch.bool), 0.5).all()


@WAYS
def test_an_invalid_box_suppresses_nothing_even_if_it_is_not_a_number(way):
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 4], [torch.nan] * 4]])
    keep = kept_by(way, boxes, torch.tensor([[0.9, 0.1, torch.inf]]), torch.tensor([[False, True, False]]), 0.5)
    assert keep.tolist() == [[False, True, False]]


def test_no_box_and_all_invalid_keep_nothing():
    assert batched_nms(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool), 0.5).shape == (
        2,
        0,
    )
    boxes, scores, valid = random_groups(2, 5, seed=0, whole=False)
    assert not batched_nms(boxes, scores, torch.zeros_like(valid), 0.5).any()


@WAYS
def test_bfloat16_autocast_changes_nothing(way):
    inputs = random_groups(groups=2, boxes=60, seed=3, whole=True)
    with torch.autocast("cpu", torch.bfloat16):
        keep = kept_by(way, *inputs, 0.5)
    assert torch.equal(keep, batched_nms(*inputs, 0.5))


def test_other_axes_are_refused():
    with pytest.raises(ShapeError, match=r"scores must have the axes \[2, 5\]"):
        batched_nms(torch.zeros(2, 5, 4), torch.zeros(2, 4), torch.ones(2, 5, dtype=torch.bool), 0.5)

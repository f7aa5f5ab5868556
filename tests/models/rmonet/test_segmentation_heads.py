from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import roi_align

from unscene.errors import RecipeError, ShapeError
from unscene.models.common.spatial_transformer import paste_boxes
from unscene.models.rmonet.resnet_fpn import Features, ResNetFPN
from unscene.models.rmonet.segmentation_heads import (
    LiteHead,
    ROIAlignHead,
    UNetHead,
    alpha_logits,
    inside_boxes,
    roi_mask,
    segmentation_head,
)
from unscene.models.rmonet.settings import BackboneSettings, HeadSettings

KINDS = pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
BACKBONE = BackboneSettings(width=8, fpn_channels=12)
BOXES = torch.tensor([[[4.0, 8, 30, 40], [33, 20, 60, 50]], [[0, 0, 64, 64], [0, 0, 0, 0]]])


def head_of(kind: str, size: int = 64, maps: int = 1, **changes):
    torch.manual_seed(0)
    settings = HeadSettings(kind=kind, channels=8, bottleneck=16, align_size=7, **changes)
    return segmentation_head(settings, ResNetFPN(BACKBONE), 12, size, maps).eval()


def features_of(size: int = 64, batch: int = 2) -> Features:
    torch.manual_seed(1)
    channels = (8, 8, 16, 32, 64)
    conv = tuple(torch.rand(batch, c, size // s, size // s) for c, s in zip(channels, (2, 4, 8, 16, 32), strict=True))
    sides = [size // 4, size // 8, size // 16, size // 32, (size // 32 + 1) // 2]
    return Features(torch.rand(batch, 3, size, size), conv, tuple(torch.randn(batch, 12, side, side) for side in sides))


def shown(maps: Tensor, box: Tensor, stride: int, expand: float = 0.3) -> Tensor:
    """One image's maps [C, h, w], plus in the box, minus on its ring, nothing elsewhere: cell after cell."""
    side = box[2:] - box[:2]
    start, end = (box[:2] - expand * side).tolist(), (box[2:] + expand * side).tolist()
    output = torch.zeros_like(maps)
    for row, column in np.ndindex(*maps.shape[1:]):
        left, top = column * stride, row * stride
        right, bottom = left + stride, top + stride
        if box[0] < right and box[2] > left and box[1] < bottom and box[3] > top:
            output[:, row, column] = maps[:, row, column]
        elif start[0] < right and end[0] > left and start[1] < bottom and end[1] > top and side.min() > 0:
            output[:, row, column] = -maps[:, row, column]
    return output


def doubled(maps: Tensor) -> Tensor:
    return maps.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def unet_of_one_box(head: UNetHead, features: Features, image: int, box: Tensor) -> Tensor:
    """Fig. 22a for one image and one box: alpha logits [H, W]."""
    conv = [tensor[image] for tensor in features.conv]
    bottom = head.mlp(features.pyramid[3][image : image + 1]).view(1, *head.bottom_shape)
    maps = head.up4(torch.cat([doubled(bottom), conv[3][None]], dim=1))
    maps = head.up3(torch.cat([doubled(maps), shown(conv[2], box, 8)[None]], dim=1))
    maps = head.up2(torch.cat([doubled(maps), shown(conv[1], box, 4)[None]], dim=1))
    maps = head.up1(torch.cat([doubled(maps), shown(conv[0], box, 2)[None]], dim=1))
    corners = head.to_alpha(maps)[0]  # [4, H/2, W/2]: the four pixels of each cell
    alpha = torch.zeros(2 * corners.shape[1], 2 * corners.shape[2])
    alpha[0::2, 0::2], alpha[0::2, 1::2], alpha[1::2, 0::2], alpha[1::2, 1::2] = corners
    return alpha


def lite_of_one_box(head: LiteHead, features: Features, image: int, box: Tensor) -> Tensor:
    """S4Net's head for one image and one box, before it is enlarged: [H / 8, W / 8]."""
    maps = shown(head.reduce(features.pyramid[1][image : image + 1])[0], box, 8)[None]
    maps = F.max_pool2d(maps, 3, stride=1, padding=1)
    maps = F.relu(maps + head.first.blocks(maps))
    maps = head.dilated(maps)
    return head.to_alpha(F.relu(maps + head.second.blocks(maps)))[0, 0]


def roi_align_of_one_box(head: ROIAlignHead, features: Features, image: int, box: Tensor) -> Tensor:
    """Mask R-CNN's head for one image and one box, before it is pasted: [14, 14]."""
    aligned = roi_align(features.pyramid[0][image : image + 1], [box[None]], 7, 0.25, sampling_ratio=2, aligned=True)
    return head.to_alpha(F.relu(head.upsample(head.body(aligned))))[0, 0]


@pytest.mark.parametrize("group_norm", [True, False])
@KINDS
def test_each_box_gets_the_alpha_map_it_would_get_alone(kind, group_norm):
    head, features = head_of(kind, group_norm=group_norm), features_of()
    with torch.no_grad():
        alpha = alpha_logits(head, features, BOXES)
        assert alpha.shape == (2, 2, 1, 64, 64)
        for image, slot in [(0, 0), (0, 1), (1, 0)]:
            box = BOXES[image, slot]
            if kind == "unet":
                expected = unet_of_one_box(head, features, image, box)
            elif kind == "lite":
                small = lite_of_one_box(head, features, image, box)
                expected = F.interpolate(small[None, None], (64, 64), mode="bilinear")[0, 0]
            else:
                small = roi_align_of_one_box(head, features, image, box)
                expected = paste_boxes(small[None, None], box[None], (64, 64), outside=None)[0, 0]
            assert_close(alpha[image, slot, 0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [64, 96])
@KINDS
def test_sizes_and_several_maps_a_box(kind, size):
    head = head_of(kind, size, maps=3)
    whole = torch.tensor([[[0.0, 0, size, size]]]).expand(2, 1, 4)
    alpha = alpha_logits(head, features_of(size), whole)
    assert alpha.shape == (2, 1, 3, size, size)
    assert (alpha[:, :, 0] - alpha[:, :, 1]).abs().max() > 1e-4


@KINDS
def test_an_empty_box_gives_finite_numbers_and_gradients(kind):
    head = head_of(kind)
    alpha = alpha_logits(head, features_of(), torch.zeros(2, 1, 4))
    alpha.sum().backward()
    assert torch.isfinite(alpha).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


def test_unet_sees_low_level_maps_near_the_box_only_and_the_rest_everywhere():
    """conv1..conv3 are region-masked; conv4 and the pyramid's conv5 keep the global context (Section 3.2)."""
    head, features = head_of("unet"), features_of(batch=1)
    box = torch.tensor([[[4.0, 4, 14, 14]]])  # with its ring 1 to 17
    near = alpha_logits(head, features, box)
    for level, stride in enumerate((2, 4, 8)):
        features.conv[level][..., 24 // stride :] += 1
    assert torch.equal(alpha_logits(head, features, box), near)
    features.conv[3][..., 3:] += 1
    with_context = alpha_logits(head, features, box)
    assert (with_context - near).abs().max() > 1e-4
    features.pyramid[3][..., 1:] += 1
    assert (alpha_logits(head, features, box) - with_context).abs().max() > 1e-4
    features.conv[0][..., 3, 3] += 1
    assert not torch.equal(alpha_logits(head, features, box)[..., 6, 6], with_context[..., 6, 6])


@pytest.mark.parametrize("wrong", [{"convolutions": 0}, {"bottleneck": 0}, {"align_size": 0}, {"expand": -0.1}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(RecipeError, match=f"{next(iter(wrong))} must be"):
        HeadSettings(**wrong)


def test_channels_that_do_not_divide_into_groups_are_refused():
    with pytest.raises(RecipeError, match="channels must be 1 to 8 or a multiple of 8"):
        HeadSettings(channels=12)
    assert HeadSettings(channels=12, group_norm=False).channels == 12


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
    output = np.zeros(size)
    for row, column in np.ndindex(size):
        if touches(box, row, column, stride):
            output[row, column] = 1
        elif side.min() > 0 and touches(enlarged, row, column, stride):
            output[row, column] = -1
    return output


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

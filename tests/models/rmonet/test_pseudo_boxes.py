from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops
from torchvision.ops import nms

from unscene.errors import RecipeError, ShapeError
from unscene.models.rmonet.multi_otsu import multi_otsu
from unscene.models.rmonet.pseudo_boxes import exact_addends, maps_by_quality, pseudo_boxes
from unscene.models.rmonet.settings import PseudoBoxSettings
from unscene.ops import boxes as boxes_module
from unscene.ops import components


def mask_with(*rectangles: tuple[int, int, int, int, float], size: int = 32) -> torch.Tensor:
    """[1, 1, H, W] mask with filled rectangles (x1, y1, x2, y2, value)."""
    mask = torch.zeros(1, 1, size, size)
    for x1, y1, x2, y2, value in rectangles:
        mask[..., y1:y2, x1:x2] = value
    return mask


def found_in(masks: torch.Tensor, **settings) -> list[list[float]]:
    """The valid boxes of the only image, as lists."""
    boxes, _, valid = pseudo_boxes(masks, PseudoBoxSettings(**settings))
    return boxes[0, valid[0]].tolist()


def test_two_squares_in_one_slot_become_two_boxes_with_exclusive_ends():
    boxes, scores, valid = pseudo_boxes(mask_with((2, 3, 8, 9, 0.9), (20, 16, 26, 24, 0.8)))
    assert boxes.shape == (1, 32, 4)
    assert boxes[0, :2].tolist() == [[2, 3, 8, 9], [20, 16, 26, 24]]
    assert scores[0, :2].tolist() == pytest.approx([0.9, 0.8])
    assert valid[0].tolist() == [True] * 2 + [False] * 30
    assert not boxes[0, 2:].any()
    assert not scores[0, 2:].any()


def test_a_slot_of_two_colours_gives_a_box_of_each_by_quality():
    """A red and a green square that touch share a slot that shows red; the background shows black."""
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, 8:16, 4:12] = 1
    images[:, 1, 8:16, 12:20] = 1
    masks = torch.zeros(1, 2, 1, 32, 32)
    masks[:, 0, :, 8:16, 4:20] = 1
    masks[:, 1] = 1 - masks[:, 0]
    components = torch.zeros(1, 2, 3, 32, 32)
    components[:, 0, 0] = 1
    maps = maps_by_quality(images, components, masks, sigma=0.5)
    assert maps.shape == (1, 3, 32, 32)
    unlike = math.exp(-2 / (2 * 0.5**2))  # of green in a slot of red: a squared distance of 2
    assert maps[0, :, 10, 6].tolist() == pytest.approx([1, 0, 0])
    assert maps[0, :, 10, 14].tolist() == pytest.approx([unlike, 1 - unlike, 0])
    assert maps[0, :, 0, 0].tolist() == pytest.approx([0, 0, 0])
    assert found_in(masks[:, :1, 0]) == [[4, 8, 20, 16]]
    assert sorted(found_in(maps, min_score=0.5)) == [[4, 8, 12, 16], [12, 8, 20, 16]]


def test_an_object_that_the_background_holds_has_a_box_by_quality():
    images, masks = torch.zeros(1, 3, 32, 32), torch.zeros(1, 2, 1, 32, 32)
    images[:, :, 8:16, 4:12] = 1
    masks[:, 1] = 1
    assert found_in(maps_by_quality(images, torch.zeros(1, 2, 3, 32, 32), masks, 0.1)) == [[4, 8, 12, 16]]


def test_a_box_at_the_image_borders_ends_at_height_and_width():
    mask = torch.zeros(1, 1, 16, 24)
    mask[..., 10:, 18:] = 1
    mask[..., :4, :5] = 0.9
    assert found_in(mask) == [[18, 10, 24, 16], [0, 0, 5, 4]]


def test_pixels_that_touch_at_a_corner_are_one_part():
    assert found_in(mask_with((4, 4, 8, 8, 0.9), (8, 8, 12, 12, 0.9))) == [[4, 4, 12, 12]]
    assert len(found_in(mask_with((4, 4, 8, 8, 0.9), (9, 8, 13, 12, 0.9)))) == 2


def test_nested_thresholds_propose_the_object_and_its_core():
    # bins of width .2: values in bins 0, 1, 2 and 4, so the thresholds are .3 and .5
    pyramid = mask_with((2, 2, 26, 26, 0.25), (4, 4, 20, 20, 0.45), (8, 8, 14, 14, 1.0))
    assert multi_otsu(pyramid.flatten(1)).tolist() == [pytest.approx([0.3, 0.5])]
    boxes, scores, valid = pseudo_boxes(pyramid)
    assert boxes[0, valid[0]].tolist() == [[8, 8, 14, 14], [4, 4, 20, 20]]
    assert scores[0, valid[0]].tolist() == pytest.approx([1.0, (36 + 0.45 * (256 - 36)) / 256])


def test_short_and_slender_boxes_are_left_out():
    cube, short, slender = (2, 2, 5, 5, 0.9), (10, 2, 12, 4, 0.9), (2, 20, 5, 30, 0.9)  # 3x3, 2x2, 3x10
    mask = mask_with(cube, short, slender)
    assert found_in(mask) == [[2, 2, 5, 5]]
    assert sorted(found_in(mask, min_side=2, max_ratio=4)) == [[2, 2, 5, 5], [2, 20, 5, 30], [10, 2, 12, 4]]
    assert found_in(mask, min_side=4) == []
    assert found_in(mask_with((2, 2, 5, 11, 0.9))) == [[2, 2, 5, 11]]  # 3x9 is just slender enough
    assert found_in(mask_with((2, 2, 11, 5, 0.9))) == [[2, 2, 11, 5]]


def test_slots_that_agree_propose_once_and_the_surer_one_wins():
    unsure, sure = mask_with((4, 4, 14, 14, 0.5)), mask_with((4, 4, 14, 13, 0.9))  # IoU .9
    boxes, scores, valid = pseudo_boxes(torch.cat([unsure, sure], dim=1))
    assert boxes[0, valid[0]].tolist() == [[4, 4, 14, 13]]
    assert scores[0, 0].item() == pytest.approx(0.9)
    assert len(found_in(torch.cat([unsure, sure], dim=1), nms_threshold=0.95)) == 2


def test_images_do_not_see_each_other():
    first, second = mask_with((4, 4, 14, 14, 0.9)), mask_with((4, 4, 14, 14, 0.5), (20, 20, 28, 28, 0.7))
    boxes, scores, valid = pseudo_boxes(torch.cat([first, torch.zeros_like(first), second]))
    assert valid.sum(dim=1).tolist() == [1, 0, 2]
    assert boxes[2, :2].tolist() == [[20, 20, 28, 28], [4, 4, 14, 14]]
    assert scores[:, 0].tolist() == pytest.approx([0.9, 0.0, 0.7])


def test_empty_and_constant_masks_propose_no_box():
    masks = torch.stack([torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.4), torch.full((3, 16, 16), 0.0009)])
    masks[2, :, 4:10, 4:10] = 0.00095  # all under the floor
    boxes, scores, valid = pseudo_boxes(masks)
    assert boxes.shape == (3, 32, 4)
    assert not valid.any()
    assert not boxes.any()
    assert not scores.any()


@pytest.mark.parametrize("value", [0.0, 1.0, -0.0, -1.0, math.nan])
def test_constant_masks_propose_no_box(value):
    assert not pseudo_boxes(torch.full((1, 2, 6, 6), value), PseudoBoxSettings(min_side=1))[2].any()


def test_the_plain_bodies_give_the_same_boxes(monkeypatch):
    masks = smooth_masks(1, images=2, slots=3, size=40)
    expected = pseudo_boxes(masks)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    for found, fast in zip(pseudo_boxes(masks), expected, strict=True):
        assert torch.equal(found, fast)
    assert expected[2].any()


def test_the_floor_keeps_faint_structure_out():
    mask = mask_with((4, 4, 10, 10, 0.0009))
    assert found_in(mask) == []
    assert found_in(mask, floor=0.0) == [[4, 4, 10, 10]]


def test_no_foreground_slot_gives_no_box():
    assert not pseudo_boxes(torch.zeros(2, 0, 16, 16))[2].any()


def test_best_boxes_are_kept_when_there_are_too_many():
    squares = [(8 * i, 8 * j, 8 * i + 5, 8 * j + 5, 0.5 + 0.03 * (4 * j + i)) for i in range(4) for j in range(4)]
    mask = mask_with(*squares)
    everything = found_in(mask)
    assert len(everything) == 16
    assert everything[0] == [24, 24, 29, 29]
    assert found_in(mask, max_boxes=3) == everything[:3]
    assert found_in(mask, max_candidates=6) == everything[:3]  # both thresholds find every square


def test_no_gradient_flows_and_bfloat16_is_accepted():
    mask = mask_with((2, 3, 8, 9, 0.9)).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        boxes, scores, _ = pseudo_boxes(mask)
    assert not boxes.requires_grad
    assert not scores.requires_grad
    assert boxes.dtype == scores.dtype == torch.float32
    assert boxes[0, 0].tolist() == [2, 3, 8, 9]


def test_a_nan_mask_proposes_no_box_and_changes_no_other_mask():
    good = mask_with((2, 3, 8, 9, 0.9))
    boxes, _, valid = pseudo_boxes(torch.cat([torch.full_like(good, torch.nan), good], dim=1))
    assert boxes[0, valid[0]].tolist() == [[2, 3, 8, 9]]


def smooth_masks(seed: int, images: int, slots: int, size: int) -> torch.Tensor:
    """Soft masks of a few blobs, some sharp and some noisy, that sum to at most 1 over the slots."""
    random = np.random.default_rng(seed)
    fields = gaussian_filter(random.normal(size=(images, slots + 1, size, size)), (0, 0, 3, 3))
    shares = torch.from_numpy(fields * random.uniform(5, 80)).softmax(dim=1)[:, 1:]
    return (shares * torch.from_numpy(random.uniform(0.8, 1, size=shares.shape))).float()


def one_mask_after_another(masks: torch.Tensor, settings: PseudoBoxSettings) -> tuple[np.ndarray, np.ndarray]:
    """The boxes and scores of one image [K-1, H, W], by loops over scikit-image's regions."""
    boxes, scores = [], []
    for mask in masks.numpy():
        mask = np.where(mask < settings.floor, 0, mask)
        thresholds = multi_otsu(torch.from_numpy(mask).view(1, -1), settings.classes, settings.bins)
        for threshold in thresholds[0].tolist():
            for region in regionprops(label(mask > threshold)):
                y1, x1, y2, x2 = region.bbox
                height, width = y2 - y1, x2 - x1
                if min(height, width) >= settings.min_side and 1 / 3 <= height / width <= 3:
                    boxes.append([x1, y1, x2, y2])
                    scores.append(mask[y1:y2, x1:x2].mean(dtype=np.float64))
    boxes, scores = torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.tensor(scores, dtype=torch.float32)
    kept = nms(boxes, scores, settings.nms_threshold)[: settings.max_boxes]
    return boxes[kept].numpy(), scores[kept].numpy()


@pytest.mark.parametrize("seed", range(6))
def test_boxes_equal_those_of_a_loop_over_scikit_image_regions(seed):
    settings = PseudoBoxSettings(max_boxes=12)
    masks = smooth_masks(seed, images=4, slots=3, size=40)
    boxes, scores, valid = pseudo_boxes(masks, settings)
    assert valid.sum() > 0
    for image in range(len(masks)):
        expected_boxes, expected_scores = one_mask_after_another(masks[image], settings)
        assert boxes[image, valid[image]].numpy() == pytest.approx(expected_boxes)
        assert scores[image, valid[image]].numpy() == pytest.approx(expected_scores, abs=1e-6)


def test_an_image_has_the_same_result_alone_and_in_a_batch():
    masks = smooth_masks(0, images=3, slots=2, size=32)
    together = pseudo_boxes(masks)
    for image in range(3):
        for batched, single in zip(together, pseudo_boxes(masks[image : image + 1]), strict=True):
            assert torch.equal(batched[image], single[0])


# the way of a GPU, where the host reads nothing


def unread_pseudo_boxes(
    masks: torch.Tensor, settings: PseudoBoxSettings | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (components, boxes_module):
            patch.setattr(module, "host_may_read", lambda _: False)
        return pseudo_boxes(masks, settings)


WAYS = pytest.mark.parametrize("found_by", [pseudo_boxes, unread_pseudo_boxes])


def assert_both_ways_agree(masks: torch.Tensor, settings: PseudoBoxSettings | None = None) -> None:
    read = pseudo_boxes(masks, settings)
    for expected, found in zip(read, unread_pseudo_boxes(masks, settings), strict=True):
        assert torch.equal(expected, found)
    assert (read[1].diff(dim=1) <= 0).all()  # in the order that is promised


CHANGES = st.sampled_from(
    [
        {},
        {"min_side": 1, "max_ratio": 2.3},
        {"classes": 2, "floor": 0.0},
        {"max_candidates": 7, "max_boxes": 5, "nms_threshold": 0.3},
        {"min_score": 0.5, "floor": 0.2, "max_boxes": 300, "max_candidates": 1000},
    ]
)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 100_000),
    shape=st.sampled_from([(1, 1, 1, 1), (2, 3, 5, 7), (3, 2, 12, 9), (2, 2, 24, 24)]),
    levels=st.sampled_from([1, 3, 1000]),  # of few levels many scores are equal
    smoothness=st.sampled_from([0.0, 1.0, 3.0]),
    changes=CHANGES,
)
def test_cpu_and_gpu_bodies_give_the_same_bits(seed, shape, levels, smoothness, changes):
    noise = np.random.default_rng(seed)
    field = gaussian_filter(noise.random(shape), (0, 0, smoothness, smoothness))
    field = (field - field.min()) / max(np.ptp(field), 1e-9)
    masks = torch.from_numpy(np.round(field * levels) / levels).float()
    assert_both_ways_agree(masks, PseudoBoxSettings(**changes))


@pytest.mark.parametrize("size", [64, 128])
def test_cpu_and_gpu_bodies_give_the_same_bits_of_soft_masks(size):
    assert_both_ways_agree(smooth_masks(0, images=2, slots=3, size=size), PseudoBoxSettings(min_score=0.2))


def test_cpu_and_gpu_bodies_give_the_same_bits_of_edge_cases():
    y, x = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    patterns = [
        (x + y) % 2,
        (x % 2 == 0) | (y == 0),
        (x % 4 < 3) & (y % 4 < 3),  # thirty-six boxes of one score
        x == y,
        torch.zeros_like(x),
        torch.ones_like(x),
        x * y / 529,
        torch.full_like(x, 1e-4, dtype=torch.float32),
        torch.full_like(x, torch.nan, dtype=torch.float32),
    ]
    masks = torch.stack([pattern.float() for pattern in patterns])
    assert_both_ways_agree(masks[None])
    assert_both_ways_agree(masks[:, None] * 0.7, PseudoBoxSettings(max_candidates=10))
    assert_both_ways_agree(torch.zeros(2, 0, 8, 8))


@pytest.mark.parametrize("floor", [0.0, 1e-4, 0.001])
def test_sums_of_the_addends_do_not_depend_on_their_order(floor):
    noise = np.random.default_rng(0)
    masks = torch.from_numpy(10 ** noise.uniform(-9, 0, (4096,))).float()
    addends = exact_addends(masks.masked_fill(masks < floor, 0).view(1, 64, 64), PseudoBoxSettings(floor=floor))
    flat = addends.double().flatten()
    assert {flat[noise.permutation(4096)].cumsum(0)[-1].item() for _ in range(20)} == {math.fsum(flat.tolist())}
    assert (flat - masks.masked_fill(masks < floor, 0)).abs().max() <= 2**-34


@WAYS
def test_equal_scores_are_sorted_by_slot_then_by_first_pixel(found_by):
    first = mask_with((20, 20, 26, 26, 1.0), (2, 8, 8, 14, 1.0), (12, 2, 18, 8, 1.0))
    second = mask_with((10, 24, 16, 30, 1.0))
    boxes, _, valid = found_by(torch.cat([first, second], dim=1))
    assert boxes[0, valid[0], :2].tolist() == [[12, 2], [2, 8], [20, 20], [10, 24]]


@WAYS
def test_the_best_are_found_among_many_candidates(found_by):
    size = 128  # 75 nested boxes of the best scores, which one of them suppresses, then 40 that stay
    nested = torch.zeros(1, 75, size, size)
    for n in range(75):
        nested[0, n, 40:100, 40:100] = 0.9 + n / 1000
    rest = torch.zeros(1, 1, size, size)
    for n in range(40):
        y, x = divmod(n, 20)
        rest[..., 6 * y : 6 * y + 4, 6 * x : 6 * x + 4] = 0.5
    boxes, scores, valid = found_by(torch.cat([nested, rest], dim=1))
    assert valid.all()
    assert boxes[0, 0].tolist() == [40, 40, 100, 100]
    assert scores[0, :2].tolist() == pytest.approx([0.974, 0.5])
    assert (
        boxes[0, 1:]
        == torch.tensor([[6.0 * (n % 20), 6 * (n // 20)] * 2 for n in range(31)]).add_(torch.tensor([0, 0, 4, 4]))
    ).all()


def test_settings_are_frozen_and_impossible_ones_are_refused():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PseudoBoxSettings().bins = 7
    with pytest.raises(RecipeError, match="bins"):
        pseudo_boxes(torch.rand(1, 1, 8, 8), PseudoBoxSettings(bins=2))
    with pytest.raises(ShapeError, match="masks"):
        pseudo_boxes(torch.rand(1, 8, 8))

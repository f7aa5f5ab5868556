"""The compiled way to pseudo boxes against the NumPy one: the same bits."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from unscene.models.rmonet import pseudo_boxes as module
from unscene.models.rmonet.pseudo_boxes import PseudoBoxSettings, pseudo_boxes

pytest.importorskip("numba")
from unscene.ops.components_numba import histograms, parts_above

SETTINGS = PseudoBoxSettings(min_side=1, max_ratio=100.0, nms_threshold=1.0, max_boxes=200)


def numpys_way(masks: torch.Tensor, chosen: PseudoBoxSettings) -> tuple[torch.Tensor, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "compiled_parts", lambda: None)
        return pseudo_boxes(masks, chosen)


def assert_same(masks: torch.Tensor, chosen: PseudoBoxSettings) -> None:
    assert module.compiled_parts() is not None
    for compiled, expected in zip(pseudo_boxes(masks, chosen), numpys_way(masks, chosen), strict=True):
        assert torch.equal(compiled, expected)


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 16, 16), (3, 1, 33, 20)]),
    blur=st.sampled_from([0.0, 0.7, 2.0]),
    levels=st.sampled_from([1, 2, 3, 1000]),
    floor=st.sampled_from([0.001, 0.0, 1e-5, 0.3]),
    variant=st.sampled_from(["skimage016", "skimage", "textbook"]),
)
def test_both_ways_give_the_same_bits(seed, shape, blur, levels, floor, variant):
    noise = np.random.default_rng(seed).random(shape)
    masks = np.floor(gaussian_filter(noise, (0, 0, blur, blur)) * levels) / levels
    masks *= np.random.default_rng(seed + 1).random((*shape[:2], 1, 1)) > 0.3  # some slots are empty
    assert_same(torch.from_numpy(masks).float(), dataclasses.replace(SETTINGS, floor=floor, variant=variant))


@pytest.mark.parametrize("sides", [(3, 3.0), (2.5, 1.5)])
def test_sides_and_scores_are_filtered_alike(sides):
    masks = torch.from_numpy(gaussian_filter(np.random.default_rng(0).random((4, 3, 48, 48)), (0, 0, 1.5, 1.5))).float()
    chosen = PseudoBoxSettings(min_side=sides[0], max_ratio=sides[1], min_score=0.52)
    assert pseudo_boxes(masks, chosen)[2].any()
    assert_same(masks, chosen)


@pytest.mark.parametrize("value", [0.0, 0.0005, 0.4, 1.0, -0.0, -1.0, float("nan")])
def test_constant_masks_have_no_part(value):
    masks = torch.full((1, 2, 6, 6), value)
    assert not pseudo_boxes(masks, SETTINGS)[2].any()
    assert_same(masks, SETTINGS)


def test_a_mask_with_nan_has_no_part_and_the_others_have_theirs():
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, :, 2:6, 2:6] = 0.9
    masks[0, 0, 0, 0] = float("nan")
    boxes, _, valid = pseudo_boxes(masks, SETTINGS)
    assert boxes[valid].tolist() == [[2, 2, 6, 6]] * int(valid.sum())
    assert_same(masks, SETTINGS)


def test_histograms_by_hand():
    """0, .2, .4, .6, .8 and 1 in bins of a fifth: a value on an edge belongs above, but float32's .6 lies below it."""
    mask = np.array([[[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]]], np.float32)
    counts, least, greatest, row_greatest = histograms(mask, 0.001, 5)
    expected = [np.histogram(mask.astype(np.float64), 5, (0, 1))[0].tolist()]
    assert counts.tolist() == expected
    assert (least.tolist(), greatest.tolist()) == ([0.0], [1.0])
    assert row_greatest.view(np.float32).tolist() == [[pytest.approx(0.4), 1.0]]


def test_parts_come_by_mask_threshold_and_first_pixel_and_room_grows():
    masks = np.zeros((1, 64, 64), np.float32)
    masks[0, ::2, ::2] = 0.5  # 1,024 single pixels, and more than the first room is for
    masks[0, 0, 0] = 1.0
    row_greatest = histograms(masks, 0.001, 5)[3]
    thresholds = np.array([[0.3, 0.6]], np.float32)
    mask, boxes, scores = parts_above(masks, thresholds, row_greatest, 0.001, (1, 1.0), False)
    assert len(mask) == 1024 + 1
    assert boxes[:3].tolist() == [[0, 0, 1, 1], [2, 0, 3, 1], [4, 0, 5, 1]]
    assert boxes[-1].tolist() == [0, 0, 1, 1]
    assert scores[[0, 1, -1]].tolist() == [1.0, 0.5, 1.0]


def test_without_numba_the_other_way_is_taken():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from unscene.models.rmonet import pseudo_boxes as module\n"
        "masks = torch.zeros(1, 1, 8, 8); masks[0, 0, 1:5, 2:7] = 1\n"
        "print(module.compiled_parts(), module.pseudo_boxes(masks)[0][0, 0].tolist())"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert answer.strip() == "None [2.0, 1.0, 7.0, 5.0]"

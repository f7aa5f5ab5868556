"""evaluate_masks: one result for every form of the same masks, and a clear word for what is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import unscene
from unscene.errors import DataError, ShapeError
from unscene.evaluation.masks import label_maps
from unscene.metrics import default_metrics

TRUE = np.array([[[0, 1, 1, 2, 2, 2]], [[0, 0, 0, 1, 1, 1]]])
FOUND = np.array([[[0, 1, 0, 3, 3, 2]], [[0, 0, 0, 2, 2, 2]]])
SLOTS = np.eye(4)[FOUND].transpose(0, 3, 1, 2)  # [B, K, H, W]


def test_by_hand():
    """IoU: 1/2 and 2/3 in the first image, with one false mask, and 1 in the second."""
    result = unscene.evaluate_masks(TRUE, FOUND, classes=[[5, 5], [5, 0]])
    assert result["instance_ap_50"] == pytest.approx(3 / 4)
    assert result["pq"] == pytest.approx(2 * (1 / 2 + 2 / 3 + 1) / 7)
    assert result["mask_iou"] == result["mbo_instance"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1) / 2)
    assert result["mbo_class"] == pytest.approx((2 / 5 + 1) / 2)
    assert (result["corloc"], result["count_error"]) == (1, 0.5)
    assert result.keys() == {name for metric in default_metrics(True).values() for name in metric.compute()}


@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy(FOUND),
        FOUND.astype(np.uint8) * 60,
        np.where(FOUND == 3, 2_000_000_000, FOUND),
        SLOTS[:, 1:],
        torch.from_numpy(SLOTS[:, 1:, None]).float() * 0.4,
        SLOTS[:, 1:].astype(bool),
    ],
    ids=["tensor", "uint8", "gaps", "binary", "soft", "bool"],
)
def test_forms_of_the_same_masks(form):
    assert unscene.evaluate_masks(TRUE, form) == unscene.evaluate_masks(TRUE, FOUND)


def test_the_background_of_masks():
    assert unscene.evaluate_masks(TRUE, SLOTS, background=0) == unscene.evaluate_masks(TRUE, FOUND)
    assert (
        unscene.evaluate_masks(TRUE, SLOTS[:, ::-1], background=-1)["pq"] == unscene.evaluate_masks(TRUE, FOUND)["pq"]
    )
    assert unscene.evaluate_masks(TRUE, SLOTS) == unscene.evaluate_masks(TRUE, FOUND + 1)


def test_forms_of_the_truth():
    one_hot = np.eye(3)[TRUE].transpose(0, 3, 1, 2)
    assert unscene.evaluate_masks(one_hot, FOUND) == unscene.evaluate_masks(TRUE, FOUND)
    one_hot[0, :, 0, 5] = 0  # no mask has the pixel: it does not count
    ignored = TRUE.copy()
    ignored[0, 0, 5] = -1
    assert unscene.evaluate_masks(one_hot, FOUND) == unscene.evaluate_masks(ignored, FOUND)
    assert unscene.evaluate_masks(ignored, FOUND)["count_error"] == 0


def test_scores_rank_the_masks():
    surest = unscene.evaluate_masks(TRUE, FOUND, scores=[[0.9, 0.1, 0.8], [0, 0.7, 0]])
    wrong_first = unscene.evaluate_masks(TRUE, FOUND, scores=[[0.2, 0.9, 0.3], [0, 0.7, 0]])
    assert surest["mask_map_50"] == pytest.approx(1)
    assert wrong_first["mask_map_50"] < 0.8


@settings(max_examples=25, deadline=None)
@given(arrays(np.int64, (2, 3, 4), elements=st.integers(0, 3)), st.permutations(range(4)))
def test_the_numbers_of_true_and_predicted_objects_do_not_matter(labels, order):
    result = unscene.evaluate_masks(labels, labels)
    others = np.where(labels > 0, np.array(order)[labels] + 7, 0)
    again = unscene.evaluate_masks(others, labels * 1000)
    assert {name: again[name] for name in ("ari", "pq", "mask_iou", "count_error")} == {
        name: result[name] for name in ("ari", "pq", "mask_iou", "count_error")
    }
    assert result["pq"] == (1 if labels.any() else None)


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (FOUND[:1], r"true has the label maps \[2, 1, 6\], but predicted \[1, 1, 6\]"),
        (FOUND[..., :5], r"but predicted \[2, 1, 5\]"),
        (FOUND[0], r"predicted must be label maps \[B, H, W\]"),
        (FOUND.astype(str), "predicted must be label maps"),
        (SLOTS[:, :, None, None], "predicted must be label maps"),
        (FOUND.astype(float), r"predicted of the axes \[B, H, W\] must be whole numbers"),
        (FOUND - 1, "predicted hold the label -1"),
        (np.moveaxis(SLOTS, 1, -1), r"take np\.moveaxis\(masks, -1, 1\)"),
        (FOUND[:, None] * 200, r"Label maps have the axes \[B, H, W\]"),
        (6 * SLOTS - 3, r"must be shares in 0\.\.1, but hold -3 to 3\. Take the softmax"),
        (np.log(SLOTS + 1e-9), "the exp of logs"),
        (np.where(SLOTS > 0, np.nan, 0), "replace NaN"),
    ],
)
def test_predictions_that_are_no_masks(predicted, message):
    with pytest.raises((ShapeError, DataError), match=message):
        unscene.evaluate_masks(TRUE, predicted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": 0}, "are label maps, in which 0 is the background"),
        ({"classes": [[1, 2]]}, r"classes must be numbers \[2, 2\]"),
        ({"classes": [[1], [2]]}, r"classes must be numbers \[2, 2\]"),
        ({"scores": np.ones((2, 2))}, r"scores must be numbers \[2, 3\]"),
        ({"scores": np.full((2, 3), np.nan)}, "scores must be finite"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises((ShapeError, DataError), match=message):
        unscene.evaluate_masks(TRUE, FOUND, **options)


def test_a_truth_of_the_wrong_kind():
    with pytest.raises(DataError, match="true hold the label -2"):
        unscene.evaluate_masks(TRUE - 2, FOUND)
    with pytest.raises(DataError, match="no image"):
        unscene.evaluate_masks(TRUE[:0], FOUND[:0])
    with pytest.raises(DataError, match="4 slots, so the background cannot be slot 4"):
        unscene.evaluate_masks(TRUE, SLOTS, background=4)


def test_equal_masks_give_the_pixel_to_the_first_and_none_to_the_background():
    masks = np.array([[[[0.0, 0.5, 0.2]], [[0.0, 0.5, 0.3]]]])
    assert label_maps(masks, "masks").tolist() == [[[0, 1, 2]]]

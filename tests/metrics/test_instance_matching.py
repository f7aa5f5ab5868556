"""Objects found and missed, with values worked by hand and a plain definition beside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from unscene.metrics.instance_matching import THRESHOLDS, InstanceMatching
from unscene.scene import Scene, Segmentation


def matching(*images) -> InstanceMatching:
    """Of pairs of true and predicted label maps, each added by itself."""
    metric = InstanceMatching()
    for true, predicted in images:
        labels = torch.as_tensor(np.asarray([true]))
        metric.update(
            Scene(torch.zeros(1, 3, *labels.shape[1:]), labels), Segmentation(torch.tensor(np.array([predicted])))
        )
    return metric


def scores(true, predicted):
    return matching((true, predicted)).compute()


def test_values_by_hand():
    true = [[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]]
    predicted = [[7, 7, 7, 0, 0, 5, 5, 0, 0, 9]]  # IoU 3/4, 1, 1/2
    result = scores(true, predicted)
    assert [result[f"instance_ap_{t}"] for t in (50, 60, 70, 80, 90)] == pytest.approx([1, 2 / 4, 2 / 4, 1 / 5, 1 / 5])
    assert [result[f"instance_f1_{t}"] for t in (50, 60, 70, 80, 90)] == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert result["pq"] == result["sq"] == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)
    assert (result["rq"], result["count_error"]) == (1, 0)


def test_a_threshold_includes_its_own_value():
    true, predicted = [[1] * 10], [[1] * 7 + [0] * 3]  # IoU .7
    assert (scores(true, predicted)["instance_ap_70"], scores(true, predicted)["instance_ap_80"]) == (1, 0)


@pytest.mark.parametrize(("true", "predicted"), [([[1, 1, 1, 1]], [[1, 1, 2, 2]]), ([[1, 1, 2, 2]], [[1, 1, 1, 1]])])
def test_of_two_halves_one_matches(true, predicted):
    result = scores(true, predicted)
    assert result["instance_ap_50"] == pytest.approx(1 / 2)
    assert result["pq"] == pytest.approx(0.5 / 1.5)
    assert (result["sq"], result["count_error"]) == (0.5, 1)
    assert result["false_per_image"] == len(set(predicted[0])) - 1


def test_nothing_found_and_nothing_there():
    assert scores([[1, 2]], [[0, 0]]) == {**dict.fromkeys(scores([[1]], [[1]]), 0), "count_error": 2}
    assert scores([[0, 0]], [[3, 0]])["instance_f1_50"] == 0
    assert scores([[0, 0]], [[3, 4]])["false_per_image"] == 2
    empty = scores([[0, 0]], [[0, 0]])
    assert (empty.pop("count_error"), empty.pop("false_per_image")) == (0, 0)
    assert set(empty.values()) == {None}
    assert matching(([[0, 0]], [[0, 0]])).per_image() == [None]


def test_pixels_that_do_not_count_belong_to_no_object():
    assert scores([[1, 1, -1, -1]], [[1, 1, 1, 2]])["instance_ap_90"] == 1


def test_images_add_up():
    metric = matching(([[1, 0]], [[1, 0]]), ([[1, 2]], [[0, 0]]))
    assert metric.compute()["instance_ap_50"] == pytest.approx(1 / 3)
    assert metric.compute()["count_error"] == 1
    assert metric.per_image() == [1, 0]


def plain_counts(true, predicted, threshold):
    """Dense IoU and the assignment with the most pairs above the threshold."""
    rows, columns = (np.setdiff1d(np.unique(labels), [0]) for labels in (true, predicted))
    iou = np.array(
        [
            [((true == a) & (predicted == b)).sum() / ((true == a) | (predicted == b)).sum() for b in columns]
            for a in rows
        ]
    ).reshape(len(rows), len(columns))
    chosen = linear_sum_assignment((iou >= threshold) + iou / (2 * max(iou.shape, default=1) + 1), maximize=True)
    pairs = iou[chosen]
    return (pairs >= threshold).sum(), pairs[pairs >= threshold].sum(), len(rows), len(columns)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6), st.sampled_from([0.0, 0.7, 0.95]))
def test_equals_the_plain_definition(seed, true_count, predicted_count, kept):
    rng = np.random.default_rng(seed)
    true = np.repeat(rng.integers(0, true_count + 1, (3, 2)), 2, axis=1)  # few pixels, so many an IoU is just .5
    noise = rng.integers(0, predicted_count + 1, true.shape)
    predicted = np.where(rng.random(true.shape) < kept, np.minimum(true, predicted_count), noise)
    image = matching((true, predicted)).images[0]
    for index, threshold in enumerate(THRESHOLDS):
        matched, iou, rows, columns = plain_counts(true, predicted, threshold)
        assert (image.matched[index], image.true, image.predicted) == (matched, rows, columns)
        assert index or image.iou == pytest.approx(iou)

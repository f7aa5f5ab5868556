from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from unscene.metrics import MeanOverImages
from unscene.metrics.contingency import contingency_table
from unscene.metrics.region_iou import (
    MaskIoU,
    intersection_over_union,
    iou_polarity,
    matched_iou,
    mean_best_overlap,
)
from unscene.scene import Scene


def measured(labels, slots, num_slots, background, make) -> MaskIoU:
    labels = torch.tensor(labels)
    metric = MaskIoU()
    metric.update(
        Scene(torch.zeros(len(labels), 3, *labels.shape[1:]), labels), make(torch.tensor(slots), num_slots, background)
    )
    return metric


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_iou_agrees_with_scikit_learn(seed, num_true, num_predicted):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, num_true, (2, 3, 3)), rng.integers(0, num_predicted, (2, 3, 3))
    true[0, 0, 0] = num_true - 1  # all have the same rows
    iou = intersection_over_union(contingency_table(torch.from_numpy(true), torch.from_numpy(predicted), num_predicted))
    for image, row, column in np.ndindex(2, num_true, num_predicted):
        a, b = (true[image] == row).ravel(), (predicted[image] == column).ravel()
        assert iou[image, row, column].item() == pytest.approx(jaccard_score(a, b, zero_division=0))


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4))
def test_matching_is_the_best_of_all_permutations(seed, rows, columns):
    iou = np.random.default_rng(seed).random((rows, columns)).round(1)  # rounded: with ties and zeros
    padded = np.pad(iou, ((0, 0), (0, rows)))  # a column of its own for each row that stays alone
    best = max(
        sum(padded[row, column] for row, column in enumerate(p)) for p in permutations(range(columns + rows), rows)
    )
    matched = matched_iou(iou)
    assert matched.shape == (rows,)
    assert matched.sum() == pytest.approx(best)


def test_matching_is_not_greedy():
    assert matched_iou(np.array([[0.9, 0.8], [0.8, 0.0]])).tolist() == [0.8, 0.8]


def test_by_hand(hard_decomposition):
    """Object 1: 2 of 3 pixels in a slot of 2: 2/3. Object 2: 2 pixels in a slot of 4: 2/4."""
    metric = measured([[[0, 0, 1, 1, 1, 2, 2]]], [[[2, 1, 0, 0, 1, 1, 1]]], 3, -1, hard_decomposition)
    assert metric.per_image() == [pytest.approx((2 / 3 + 2 / 4) / 2)]


def test_two_means(hard_decomposition):
    """Image 1: one object, found (1). Image 2: objects 1 (found), 2 and 3 (lost). Image 3: none. (1 + 1/3) / 2, 2/4."""
    labels = [[[0, 1, 1, 1]], [[0, 1, 2, 3]], [[0, 0, 0, 0]]]
    slots = [[[0, 1, 1, 1]], [[0, 1, 0, 0]], [[0, 1, 1, 1]]]
    metric = measured(labels, slots, 2, 0, hard_decomposition)
    assert metric.per_image() == [1, pytest.approx(1 / 3), None]
    assert metric.compute() == {"mask_iou": pytest.approx(2 / 3), "mask_iou_objects": pytest.approx(2 / 4)}


def test_hidden_objects_do_not_count(hard_decomposition):
    """Label 1 has no pixel left; label 2 is found."""
    assert measured([[[0, 2, 2]]], [[[1, 0, 0]]], 2, -1, hard_decomposition).compute()["mask_iou_objects"] == 1


def test_background_slot_matches_no_object(hard_decomposition):
    labels, slots = [[[0, 1, 1]]], [[[0, 1, 1]]]
    assert measured(labels, slots, 2, 1, hard_decomposition).per_image() == [0]
    assert measured(labels, slots, 2, 0, hard_decomposition).per_image() == [1]
    assert measured(labels, slots, 2, None, hard_decomposition).per_image() == [1]
    assert measured(labels, [[[1, 0, 0]]], 2, None, hard_decomposition).per_image() == [1]  # slot 0 may match too


def test_single_slot_that_is_the_background(hard_decomposition):
    assert measured([[[0, 1]]], [[[0, 0]]], 1, 0, hard_decomposition).per_image() == [0]


def polarity(labels, slots, num_slots, background, make) -> MeanOverImages:
    labels, metric = torch.tensor(labels), iou_polarity()
    decomposition = make(torch.tensor(slots), num_slots, background)
    metric.update(Scene(torch.zeros(len(labels), 3, *labels.shape[1:]), labels), decomposition)
    return metric


def test_either_side_may_be_the_foreground(hard_decomposition):
    labels = [[[0, 0, 0, 1, 2]]]  # two objects, two pixels in all
    right = polarity(labels, [[[0, 0, 1, 1, 1]]], 2, 0, hard_decomposition)
    assert right.compute() == {"iou_polarity": pytest.approx(2 / 3), "iou_foreground": pytest.approx(2 / 3)}
    turned = polarity(labels, [[[1, 1, 0, 0, 0]]], 2, 0, hard_decomposition)
    assert turned.compute() == {"iou_polarity": pytest.approx(2 / 3), "iou_foreground": 0.0}
    unstated = polarity(labels, [[[1, 1, 0, 0, 0]]], 2, None, hard_decomposition)
    assert unstated.compute() == {"iou_polarity": pytest.approx(2 / 3), "iou_foreground": None}


def test_objects_of_several_slots_are_one_foreground(hard_decomposition):
    metric = polarity([[[0, 1, 1, 1]]], [[[0, 2, 1, 0]]], 3, 0, hard_decomposition)
    assert metric.per_image() == [pytest.approx(2 / 3)]


def test_images_without_objects_and_models_of_three_slots_without_background_do_not_count(hard_decomposition):
    metric = polarity([[[0, 0]], [[0, 1]]], [[[0, 1]], [[0, 1]]], 2, None, hard_decomposition)
    assert metric.per_image() == [None, 1.0]
    assert polarity([[[0, 1]]], [[[0, 1]]], 3, None, hard_decomposition).per_image() == [None]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_polarity_iou_is_redos_score(hard_decomposition, seed):
    """ReDO's evaluation of one image by scikit-learn: the mask of region 0, or its complement."""
    rng = np.random.default_rng(seed)
    true, region = rng.integers(0, 2, (1, 3, 3)), rng.integers(0, 2, (1, 3, 3))
    true[0, 0, 0] = 1
    expected = max(jaccard_score(true.ravel(), (region == side).ravel(), zero_division=0) for side in (0, 1))
    metric = polarity(true.tolist(), region.tolist(), 2, None, hard_decomposition)
    assert metric.per_image() == [pytest.approx(expected)]


def best(labels, slots, background, make, categories=None) -> dict[str, list[float | None]]:
    labels, metric = torch.tensor([[labels]]), mean_best_overlap()
    classes = None if categories is None else torch.tensor([categories])
    scene = Scene(torch.zeros(1, 3, *labels.shape[1:]), labels, categories=classes)
    metric.update(scene, make(torch.tensor([[slots]]), 3, background))
    return metric.values


def test_best_overlap_by_hand(hard_decomposition):
    """Both objects have slot 1 as the best: 2/3 and 1/3; together, as one class, 1."""
    values = best([0, 1, 1, 2], [0, 1, 1, 1], 0, hard_decomposition, [4, 4])
    assert values == {"mbo_instance": [pytest.approx(1 / 2)], "mbo_class": [1.0]}
    values = best([0, 1, 1, 2], [0, 1, 1, 1], 0, hard_decomposition, [4, 7])
    assert values["mbo_class"] == values["mbo_instance"]
    assert best([0, 1, 1, 2], [0, 1, 1, 1], 0, hard_decomposition, [0, 7])["mbo_class"] == [pytest.approx(1 / 3)]
    assert best([0, 1, 1, 2], [0, 1, 1, 1], 0, hard_decomposition)["mbo_class"] == [None]


def test_best_overlap_with_a_stated_background_and_without_objects(hard_decomposition):
    assert best([0, 1, 1, 1], [0, 0, 0, 0], None, hard_decomposition)["mbo_instance"] == [3 / 4]
    assert best([0, 1, 1, 1], [0, 0, 0, 0], 0, hard_decomposition)["mbo_instance"] == [0]
    empty = best([0, 0, 0, 0], [0, 0, 1, 1], 0, hard_decomposition, [3])
    assert empty == {"mbo_instance": [None], "mbo_class": [None]}

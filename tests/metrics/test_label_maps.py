"""All metrics of label maps: what holds for any of them, and the smallest cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unscene.metrics import default_metrics
from unscene.scene import Scene, Segmentation, boxes_of_labels

AT_MOST_1 = (
    *("ari_fg", "ari", "ami_fg", "map_50_95", "mask_map_50_95", "instance_ap_90", "instance_f1_50", "pq", "sq", "rq"),
    *("mbo_instance", "mbo_class", "corloc", "mask_iou", "iou_foreground"),
)
RANKED = ("map_", "ar_", "mask_map_", "mask_ar_")  # equal scores rank by label


def scores(true, predicted) -> dict[str, float | None]:
    labels = torch.as_tensor(np.asarray(true))[None]
    count = max(int(labels.max()), 1)
    boxes, categories = (
        torch.from_numpy(boxes_of_labels(labels.clamp_min(0).numpy(), count)),
        torch.arange(1, count + 1)[None],
    )
    metrics, scene = (
        [*default_metrics().values()],
        Scene(torch.zeros(1, 3, *labels.shape[1:]), labels, boxes, categories),
    )
    for metric in metrics:
        metric.update(scene, Segmentation(torch.as_tensor(np.asarray(predicted))[None]))
    return {name: value for metric in metrics for name, value in metric.compute().items()}


label_maps = arrays(np.int64, (5, 6), elements=st.integers(0, 4))


@settings(max_examples=40, deadline=None)
@given(label_maps)
def test_a_map_scored_against_itself_has_1_and_without_an_object_no_value(labels):
    result = scores(labels, labels)
    expected = 1.0 if labels.any() else None
    assert {name: result[name] for name in AT_MOST_1} == {
        name: 1.0 if name == "ari" else pytest.approx(expected) for name in AT_MOST_1
    }
    assert result["count_error"] == 0


@settings(max_examples=40, deadline=None)
@given(label_maps, label_maps, st.permutations([1, 2, 3, 4]))
def test_the_numbers_of_the_predicted_objects_do_not_matter(true, predicted, order):
    renumbered = np.array([0, *order])[predicted]
    first, second = scores(true, predicted), scores(true, renumbered)
    for name in first:
        if not name.startswith(RANKED):
            assert second[name] == (None if first[name] is None else pytest.approx(first[name], abs=1e-12))


@settings(max_examples=40, deadline=None)
@given(label_maps, label_maps)
def test_no_score_is_above_1_and_pq_is_its_two_factors(true, predicted):
    result = scores(true, predicted)
    assert all(result[name] is None or result[name] <= 1 + 1e-12 for name in AT_MOST_1)
    if result["pq"] is not None:
        assert result["pq"] == pytest.approx(result["sq"] * result["rq"])
    if result["mask_iou"] is not None:
        assert result["mbo_instance"] >= result["mask_iou"] - 1e-12


def test_no_object_there():
    result = scores([[0, 0]], [[0, 3]])
    assert (result["instance_ap_50"], result["pq"], result["count_error"]) == (0, 0, 1)
    for name in ("ari_fg", "ami_fg", "map_50", "mask_map_50", "mask_iou", "mbo_instance", "mbo_class", "corloc"):
        assert result[name] is None


def test_everything_is_background():
    result = scores([[0, 1], [1, 2]], [[0, 0], [0, 0]])
    zeros = ("map_50", "mask_map_50", "mask_iou", "mbo_instance", "mbo_class", "corloc", "instance_ap_50", "pq", "sq")
    assert {name: result[name] for name in zeros} == dict.fromkeys(zeros, 0)
    assert (result["ari_fg"], result["count_error"]) == (0, 2)


def test_one_object():
    result = scores([[0, 1, 1, 1]], [[0, 0, 5, 5]])
    names = ("mask_iou", "mbo_instance", "mbo_class", "pq", "sq")
    assert [result[name] for name in names] == pytest.approx([2 / 3] * 5)
    assert [result[name] for name in ("instance_ap_60", "instance_ap_70", "corloc")] == [1, 0, 1]
    assert result["ari_fg"] == 0  # split between the background and label 5


@pytest.mark.parametrize("name", ["ari_fg_objects", "located", "reconstruction_mse"])
def test_what_label_maps_lack_is_not_applicable(name):
    assert scores([[0, 1]], [[0, 1]])[name] is None

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

from unscene.errors import DataError, ShapeError, TrainingError
from unscene.metrics.ami import ami_fg
from unscene.scene import Decomposition, Scene


def of(labels, slots, background=0, num_slots=4):
    """A scene and the decomposition whose argmax is `slots`, [B, H, W] each."""
    labels, slots = torch.as_tensor(labels), torch.as_tensor(slots)
    masks = torch.nn.functional.one_hot(slots, num_slots).permute(0, 3, 1, 2).unsqueeze(2).float()
    batch, _, _, height, width = masks.shape
    images = torch.zeros(batch, 3, height, width)
    return Scene(images, labels), Decomposition(
        (0.9 * masks + 0.1 / num_slots).log(), torch.zeros(batch, num_slots, 3, height, width), background
    )


def scores(labels, slots, **more):
    metric = ami_fg()
    metric.update(*of(labels, slots, **more))
    return metric.compute()


def test_one_slot_for_each_object_is_1_for_any_background():
    assert scores([[[0, 0, 1, 1, 2, 2]]], [[[3, 1, 2, 2, 1, 1]]]) == {"ami_fg": 1.0, "ami_fg_arithmetic": 1.0}


def test_one_object_is_1_in_one_slot_and_0_when_split():
    assert scores([[[1, 1, 1, 1]]], [[[2, 2, 2, 2]]])["ami_fg"] == 1.0
    assert scores([[[1, 1, 1, 1]]], [[[1, 1, 2, 2]]])["ami_fg"] == pytest.approx(0)


def test_two_objects_in_one_slot_are_0():
    assert scores([[[1, 1, 2, 2]]], [[[1, 1, 1, 1]]])["ami_fg"] == pytest.approx(0)


def test_agrees_with_scikit_learn_on_the_pixels_of_objects():
    choose = np.random.default_rng(0)
    labels, slots = choose.integers(0, 4, (3, 6, 7)), choose.integers(0, 4, (3, 6, 7))
    slots[choose.random(slots.shape) < 0.6] = labels[choose.random(slots.shape) < 0.6].mean().astype(int)
    result = scores(labels, slots)
    for name, average in (("ami_fg", "max"), ("ami_fg_arithmetic", "arithmetic")):
        images = [
            adjusted_mutual_info_score(true[true > 0], found[true > 0], average_method=average)
            for true, found in zip(labels, slots, strict=True)
        ]
        assert result[name] == pytest.approx(np.mean(images))
    assert result["ami_fg"] != result["ami_fg_arithmetic"]


def test_image_without_objects_and_one_without_labels_do_not_count():
    metric = ami_fg()
    metric.update(*of([[[0, 0]], [[1, 2]]], [[[1, 2]], [[1, 2]]]))
    scene, decomposition = of([[[0, 0]]], [[[1, 2]]])
    metric.update(Scene(scene.images), decomposition)
    assert metric.per_image() == [None, 1.0, None]
    assert metric.compute()["ami_fg"] == 1.0


def test_merged_metrics_equal_one_metric():
    both, first_metric, second_metric = (ami_fg() for _ in range(3))
    first, second = of([[[1, 2, 2, 1]]], [[[1, 2, 1, 1]]]), of([[[1, 1, 2, 2]]], [[[1, 1, 3, 3]]])
    for batch in (first, second):
        both.update(*batch)
    first_metric.update(*first)
    second_metric.update(*second)
    first_metric.merge(second_metric)
    assert first_metric == both


def test_broken_inputs_are_errors():
    scene, decomposition = of([[[1, 2]]], [[[1, 2]]])
    broken = Decomposition(decomposition.log_masks * torch.nan, decomposition.components)
    with pytest.raises(TrainingError, match="NaN"):
        ami_fg().update(scene, broken)
    with pytest.raises(DataError, match="integers"):
        ami_fg().update(Scene(scene.images, scene.labels.float()), decomposition)
    with pytest.raises(ShapeError, match="labels"):
        ami_fg().update(Scene(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long()), decomposition)

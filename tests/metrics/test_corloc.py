from __future__ import annotations

import pytest
import torch

from unscene.metrics.corloc import corloc
from unscene.scene import Scene


def found(slots, background, make, boxes=(0, 0, 4, 1)) -> list[float | None]:
    metric = corloc()
    slots = torch.tensor([[slots]])
    metric.update(
        Scene(torch.zeros(1, 3, 1, slots.shape[2]), boxes=torch.tensor([[boxes]]).float()), make(slots, 3, background)
    )
    return metric.per_image()


@pytest.mark.parametrize(
    ("slots", "expected"),
    [([1, 1, 1, 1, 0, 0], 1), ([1, 1, 0, 0, 0, 0], 1), ([1, 0, 0, 0, 0, 0], 0), ([1, 2, 0, 1, 0, 0], 1)],
)
def test_the_box_of_one_mask_overlaps_the_object_by_half(hard_decomposition, slots, expected):
    assert found(slots, 0, hard_decomposition) == [expected]


def test_a_stated_background_finds_nothing(hard_decomposition):
    assert found([0, 0, 0, 0, 0, 0], 0, hard_decomposition) == [0]
    assert found([0, 0, 0, 0, 0, 0], None, hard_decomposition) == [1]  # 4 of 6 pixels


def test_an_image_without_an_object_does_not_count(hard_decomposition):
    assert found([1, 1, 0, 0, 0, 0], 0, hard_decomposition, boxes=(0, 0, 0, 0)) == [None]

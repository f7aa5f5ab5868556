from __future__ import annotations

import torch

from unscene.ops.topk_per_level import top_of_all_levels, top_of_each_level

OBJECTNESS = torch.tensor([[1.0, 3.0, 2.0, -5.0, -4.0, 0.0], [0.0, -1.0, 5.0, 9.0, 7.0, 8.0]])
LEVELS = (3, 2, 1)


def test_top_of_each_level_by_hand():
    (first, first_place), (second, second_place), (third, third_place) = top_of_each_level(OBJECTNESS, LEVELS, 2)
    assert first.tolist() == [[[3, 2]], [[5, 0]]]
    assert first_place.tolist() == [[[1, 2]], [[2, 0]]]
    assert second.tolist() == [[[-4, -5]], [[9, 7]]]
    assert second_place.tolist() == [[[4, 3]], [[3, 4]]]
    assert third.tolist() == [[[0]], [[8]]]
    assert third_place.tolist() == [[[5]], [[5]]]


def test_top_of_all_levels_fills_up_what_a_level_lacks():
    [(logits, place)] = top_of_all_levels(OBJECTNESS, LEVELS, 2)
    assert logits.tolist() == [[[3, 2], [-4, -5], [0, -torch.inf]], [[5, 0], [9, 7], [8, -torch.inf]]]
    assert place[0, :, 0].tolist() == [1, 4, 5]
    assert place[1].tolist()[:2] == [[2, 0], [3, 4]]
    assert 0 <= place.min() <= place.max() < 6


def test_no_level_gives_more_than_the_longest_has():
    [(logits, _)] = top_of_all_levels(OBJECTNESS, LEVELS, 100)
    assert logits.shape == (2, 3, 3)
    assert [tuple(level.shape) for level, _ in top_of_each_level(OBJECTNESS, LEVELS, 100)] == [
        (2, 1, 3),
        (2, 1, 2),
        (2, 1, 1),
    ]

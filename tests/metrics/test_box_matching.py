"""F-score of boxes: by hand, one to one, and without any box."""

from __future__ import annotations

import numpy as np
import pytest

from unscene.metrics.box_matching import BoxMatching


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_scores_by_hand():
    scores = BoxMatching()
    # the first by half exactly; the second by 4 / 12; the third is no box
    scores.add_image(boxes((0, 0, 4, 4), (10, 10, 14, 14), (0, 0, 0, 0)), boxes((0, 0, 4, 8), (12, 10, 16, 14)))
    scores.add_image(boxes((0, 0, 2, 2)), boxes())
    scores.add_image(boxes(), boxes((3, 3, 5, 5), (0, 0, 1, 1)))
    computed = scores.compute()
    assert computed["box_precision_50"] == pytest.approx(1 / 4)
    assert computed["box_recall_50"] == pytest.approx(1 / 3)
    assert computed["box_f1_50"] == pytest.approx(2 / 7)


def test_a_box_counts_once():
    scores = BoxMatching()
    scores.add_image(boxes((0, 0, 4, 4)), boxes((0, 0, 4, 4), (0, 0, 4, 3)))
    assert scores.compute()["box_precision_50"] == 0.5


def test_boxes_that_overlap_are_matched_for_the_most_pairs():
    scores = BoxMatching()  # the first true box could have either found one, the second only the first
    scores.add_image(boxes((0, 0, 4, 4), (0, 0, 4, 8)), boxes((0, 0, 4, 4), (0, 0, 4, 2)))
    assert (scores.matched, scores.compute()["box_f1_50"]) == (2, 1)


def test_without_a_box_there_is_no_score():
    assert set(BoxMatching().compute().values()) == {None}

"""F-score and average precision of boxes: by hand, one to one, beside another implementation, and without any box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from unscene.metrics.box_matching import BoxMatching


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def matching(*images: tuple[np.ndarray, np.ndarray, list[float]]) -> BoxMatching:
    """The true boxes, the found ones and their scores of each image."""
    scores = BoxMatching()
    for true, found, confidence in images:
        scores.add_image(true, found, np.array(confidence, np.float32))
    return scores


def test_scores_by_hand():
    scores = matching(
        # the first by half exactly; the second by 4 / 12; the third is no box
        (boxes((0, 0, 4, 4), (10, 10, 14, 14), (0, 0, 0, 0)), boxes((0, 0, 4, 8), (12, 10, 16, 14)), [0.9, 0.8]),
        (boxes((0, 0, 2, 2)), boxes(), []),
        (boxes(), boxes((3, 3, 5, 5), (0, 0, 1, 1)), [0.95, 0.1]),
    )
    computed = scores.compute()
    assert computed["box_precision_50"] == pytest.approx(1 / 4)
    assert computed["box_recall_50"] == pytest.approx(1 / 3)
    assert computed["box_f1_50"] == pytest.approx(2 / 7)
    assert computed["box_ap_50"] == pytest.approx(34 / 101 / 2)  # precision 1 / 2 at recalls 0, .01 .. .33


def test_a_box_counts_once():
    scores = matching((boxes((0, 0, 4, 4)), boxes((0, 0, 4, 4), (0, 0, 4, 3)), [0.5, 0.5]))
    assert scores.compute()["box_precision_50"] == 0.5


def test_boxes_that_overlap_are_matched_for_the_most_pairs():
    # the first true box could have either found one, the second only the first
    true, found = boxes((0, 0, 4, 4), (0, 0, 4, 8)), boxes((0, 0, 4, 4), (0, 0, 4, 2))
    scores = matching((true, found, [0.5, 0.5]))
    assert (scores.matched, scores.compute()["box_f1_50"]) == (2, 1)


def average_precision_at_50(images: list[tuple[np.ndarray, np.ndarray, list[float]]]) -> float:
    """From COCO's definition: the found boxes of all images in the order of their scores; torchvision's IoU."""
    ranked = sorted((-score, n, row) for n, (_, _, scores) in enumerate(images) for row, score in enumerate(scores))
    taken: set[tuple[int, int]] = set()
    right = []
    for _, n, row in ranked:
        iou = box_iou(torch.tensor(images[n][1][row : row + 1]), torch.tensor(images[n][0]))[0].tolist()
        free = [(value, m) for m, value in enumerate(iou) if value >= 0.5 and (n, m) not in taken]
        right.append(bool(free))
        taken |= {(n, max(free)[1])} if free else set()
    hits = np.cumsum(right)
    recall, precision = hits / sum(len(true) for true, _, _ in images), hits / np.arange(1, len(hits) + 1)
    return float(np.mean([max(precision[recall >= level], default=0) for level in np.linspace(0, 1, 101)]))


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_ranks_the_boxes_of_all_images_together(seed):
    rng = np.random.default_rng(seed)
    images = []
    for count in (5, 0, 3, 8):
        corners = rng.uniform(0, 40, (count, 2))
        true = np.concatenate([corners, corners + rng.uniform(4, 20, (count, 2))], axis=1).astype(np.float32)
        near = true[rng.random(count) < 0.8] + rng.normal(0, 1.5, (1, 4)).astype(np.float32)
        found = np.concatenate([near, boxes((50, 50, 60, 60), (1, 50, 9, 58))])
        images.append((true, found, rng.permutation(100)[: len(found)] / 100))
    images = [(true, found, list(map(float, np.float32(scores)))) for true, found, scores in images]
    value = matching(*images).compute()["box_ap_50"]
    assert value == pytest.approx(average_precision_at_50(images), abs=1e-9)
    assert 0 < value < 1


def test_without_a_box_there_is_no_score():
    assert set(BoxMatching().compute().values()) == {None}
    nothing_found = matching((boxes((0, 0, 4, 4)), boxes(), [])).compute()
    assert (nothing_found["box_ap_50"], nothing_found["box_precision_50"]) == (0, None)
    assert matching((boxes(), boxes((0, 0, 4, 4)), [0.5])).compute()["box_ap_50"] is None

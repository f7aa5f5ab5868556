"""Objects found and missed: true and predicted masks matched one to one, as microscopy counts (StarDist, Cellpose).

A true and a predicted object match at a threshold t if their IoU is at least t. TP are the matched pairs, FP the
predicted objects without a match, FN the true ones, all summed over the images:

    AP_t = TP / (TP + FP + FN),   F1_t = 2 TP / (2 TP + FP + FN)                       (Caicedo et al., 2019)
    SQ = mean IoU of the pairs at .5,   RQ = F1_.5,   PQ = SQ RQ                        (Kirillov et al., 2019)

This AP isn't COCO's: it has no score and no precision-recall curve. PQ is for one class of objects, without the ground.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unscene.metrics import ItemPerImage, mean_of_counted
from unscene.metrics.region_iou import object_overlaps
from unscene.scene import Prediction, Scene

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


class Matches(NamedTuple):
    """The counts of one image."""

    true: int
    predicted: int
    matched: tuple[int, ...]  # TP at each threshold
    iou: float  # sum over the pairs at the first threshold


def match_objects(iou: NDArray[np.float64]) -> Matches:
    """Count the pairs of M true and N predicted objects that do not overlap among themselves, from their IoU [M, N].

    Above .5 an object has one partner at most. At .5 it may have two, its halves, and each of them has no other. So
    the pairs are the edges of a forest of stars, one pair of each star is matched, and stars are objects less edges.
    """
    edges = [iou >= threshold for threshold in THRESHOLDS]
    matched = [int(near.any(axis=0).sum() + near.any(axis=1).sum() - near.sum()) for near in edges]
    halves = int(edges[0].sum()) - matched[0]  # edges beyond the first of a star, all of an IoU of .5
    true, predicted = iou.shape
    return Matches(true, predicted, tuple(matched), float(iou[edges[0]].sum()) - THRESHOLDS[0] * halves)


class InstanceMatching(ItemPerImage[Matches]):
    """AP and F1 at every threshold, PQ, SQ, RQ; over the images the mean of FP at .5 and of |predicted - true| objects.

    Without any object at all, true or predicted, all but these means are None; without any pair, 0. `per_image` is
    AP at .5. The background's slot is no object, where the model states it.
    """

    def measure(self, scene: Scene, prediction: Prediction) -> Iterable[Matches] | None:
        if scene.labels is None:
            return None
        return [match_objects(iou[:, found]) for iou, found in object_overlaps(scene.labels, prediction)]

    def compute(self) -> dict[str, float | int | None]:
        images = [image for image in self.images if image is not None]
        objects = sum(image.true + image.predicted for image in images)
        scores: dict[str, float | int | None] = {}
        tp = [sum(image.matched[index] for image in images) for index in range(len(THRESHOLDS))]
        for threshold, matched in zip(THRESHOLDS, tp, strict=True):
            scores[f"instance_ap_{100 * threshold:.0f}"] = matched / (objects - matched) if objects else None
            scores[f"instance_f1_{100 * threshold:.0f}"] = 2 * matched / objects if objects else None
        iou = sum(image.iou for image in images)
        scores["pq"] = 2 * iou / objects if objects else None
        scores["sq"] = iou / max(tp[0], 1) if objects else None
        scores["rq"] = scores["instance_f1_50"]
        scores["false_per_image"] = mean_of_counted(image.predicted - image.matched[0] for image in images)
        scores["count_error"] = mean_of_counted(abs(image.predicted - image.true) for image in images)
        return scores

    def per_image(self) -> list[float | None]:
        return [
            image.matched[0] / (image.true + image.predicted - image.matched[0])
            if image and image.true + image.predicted
            else None
            for image in self.images
        ]

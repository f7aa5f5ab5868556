"""F-score and average precision of boxes, for games whose truth is boxes: as MOC counts (Delfosse et al., 2023).

    F1 = 2 TP / (true + found),   precision = TP / found,   recall = TP / true

TP are pairs of a true and a found box of an IoU of .5 or more, as many as can be had one to one in each image, summed
over the images. The average precision is COCO's at an IoU of .5: the objects of all images are ranked by their scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from unscene.metrics.average_precision import Overlaps, box_iou, coco_precision_and_recall

_THRESHOLD = 0.5 - 1e-6  # of float32 boxes


class BoxMatching:
    """The counts of all images that were added."""

    def __init__(self) -> None:
        self.matched = 0
        self.images: list[Overlaps] = []

    def add_image(self, true: NDArray[np.floating], found: NDArray[np.floating], scores: NDArray[np.floating]) -> None:
        """Add an image's true boxes [M, 4], and those found [N, 4] with their scores [N]; boxes are `x1 y1 x2 y2`.

        A true box without an area does not count.
        """
        true = true[(true[:, 2:] > true[:, :2]).all(axis=1)]
        iou = box_iou(true, found)
        near = iou >= _THRESHOLD
        self.matched += int(near[linear_sum_assignment(near, maximize=True)].sum())
        self.images.append(Overlaps(iou, scores.astype(np.float64)))

    def compute(self) -> dict[str, float | None]:
        """The scores by name; None where there is no box to count."""
        true, found = (sum(image.iou.shape[axis] for image in self.images) for axis in (0, 1))
        return {
            "box_f1_50": 2 * self.matched / (true + found) if true + found else None,
            "box_precision_50": self.matched / found if found else None,
            "box_recall_50": self.matched / true if true else None,
            "box_ap_50": coco_precision_and_recall(self.images)[1],
        }

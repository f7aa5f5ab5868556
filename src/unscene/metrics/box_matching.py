"""F-score of boxes, for games whose truth is boxes: as MOC counts (Delfosse et al., 2023), at an IoU of .5.

    F1 = 2 TP / (true + found),   precision = TP / found,   recall = TP / true

TP are pairs of a true and a found box of an IoU of .5 or more, as many as can be had one to one in each image, summed
over the images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from unscene.metrics.average_precision import box_iou

_THRESHOLD = 0.5 - 1e-6  # of float32 boxes


class BoxMatching:
    """The counts of all images that were added."""

    def __init__(self) -> None:
        self.true = self.found = self.matched = 0

    def add_image(self, true: NDArray[np.floating], found: NDArray[np.floating]) -> None:
        """Add the boxes [M, 4] and [N, 4] of an image, `x1 y1 x2 y2`; a true box without an area does not count."""
        true = true[(true[:, 2:] > true[:, :2]).all(axis=1)]
        near = box_iou(true, found) >= _THRESHOLD
        self.matched += int(near[linear_sum_assignment(near, maximize=True)].sum())
        self.true += len(true)
        self.found += len(found)

    def compute(self) -> dict[str, float | None]:
        """The scores by name; None where there is no box to count."""
        boxes = self.true + self.found
        return {
            "box_f1_50": 2 * self.matched / boxes if boxes else None,
            "box_precision_50": self.matched / self.found if self.found else None,
            "box_recall_50": self.matched / self.true if self.true else None,
        }

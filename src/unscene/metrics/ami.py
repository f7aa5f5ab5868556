"""Adjusted mutual information of slots and objects, corrected for chance (Vinh, Epps & Bailey, 2010)."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score

from unscene.metrics import ImageValues, MeanOverImages
from unscene.metrics.contingency import decomposition_table
from unscene.scene import Prediction, Scene


def adjusted_mutual_information(table: NDArray[np.integer]) -> tuple[float, float]:
    """Return (I - E) / (max(H_t, H_p) - E) and (I - E) / ((H_t + H_p) / 2 - E), by scikit-learn.

    NEM and its time used scikit-learn before 0.22, whose only normaliser was the maximum; today's default is the mean.
    Two partitions that agree wholly have 1, also one object in one slot. One object that is split has 0.

    Args:
        table: [R, C] pixel counts n_ij of true label i and predicted label j, at least one pixel.
    """
    true, predicted = (labels.ravel().repeat(table.ravel()) for labels in np.indices(table.shape))
    maximum = adjusted_mutual_info_score(true, predicted, average_method="max")
    return float(maximum), float(adjusted_mutual_info_score(true, predicted, average_method="arithmetic"))


def _ami_of_images(scene: Scene, prediction: Prediction) -> ImageValues | None:
    if scene.labels is None:
        return None
    tables = decomposition_table(scene.labels, prediction)[:, 1:].numpy()  # the pixels of true objects
    scores = [adjusted_mutual_information(table) if table.any() else (None, None) for table in tables]
    return {"ami_fg": [score[0] for score in scores], "ami_fg_arithmetic": [score[1] for score in scores]}


ami_fg = partial(MeanOverImages, _ami_of_images, ("ami_fg", "ami_fg_arithmetic"))
"""Mean adjusted mutual information over images, of the pixels of true objects alone, as in NEM (Greff et al., 2017).

NEM also leaves out pixels where objects overlap, which label maps do not record. The predicted label is the argmax over
all K slots, background included; an image without a pixel of an object is not counted.
"""

"""The foreground ARI image by image, by scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score


def plain_foreground_ari(true_labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> list[float | None]:
    """Return scikit-learn's adjusted Rand index of each image on the pixels of true objects, None without any.

    Args:
        true_labels: [B, H, W], 0 is the background.
        predicted: [B, H, W].
    """
    scores: list[float | None] = []
    for truth, guess in zip(true_labels, predicted, strict=True):
        foreground = truth > 0
        if foreground.any():
            scores.append(float(adjusted_rand_score(truth[foreground], guess[foreground])))
        else:
            scores.append(None)
    return scores

"""Adjusted mutual information: what slots tell of objects, corrected for chance (Vinh, Epps & Bailey, 2010)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from unscene.errors import DataError, check_shape
from unscene.metrics import mean_of_counted
from unscene.metrics.contingency import check_masks
from unscene.scene import Decomposition, Scene


def adjusted_mutual_information(true: NDArray[np.integer], predicted: NDArray[np.integer]) -> tuple[float, float]:
    """Return (I - E) / (max(H_t, H_p) - E) and (I - E) / ((H_t + H_p) / 2 - E), by scikit-learn.

    NEM and its time used scikit-learn under 0.22, whose only normaliser was the maximum; today's default is the mean.
    Two partitions that agree wholly are 1, one object in one slot among them. One object, split, is 0.

    Args:
        true: [P] labels.
        predicted: [P] labels of the same pixels, at least one.

    Returns:
        By the maximum, by the mean.
    """
    maximum, mean = (
        float(adjusted_mutual_info_score(true, predicted, average_method=average)) for average in ("max", "arithmetic")
    )
    return maximum, mean


@dataclass
class AdjustedMutualInformation:
    """Mean adjusted mutual information over images, of the pixels of true objects alone, as in NEM.

    NEM (Greff et al., 2017) leaves out the background's pixels, and those where objects overlap, of which label maps
    know nothing. The predicted label is the argmax over all K slots, background included; an image without a pixel of
    an object is not counted.
        ami_fg: normalised by the larger entropy, as when NEM was published.
        ami_fg_arithmetic: by the mean of the two entropies, scikit-learn's default since 0.22.
    """

    scores: list[float | None] = field(default_factory=list, init=False)
    arithmetic: list[float | None] = field(default_factory=list, init=False)

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        if scene.labels is None:
            self.scores += [None] * len(scene)
            self.arithmetic += [None] * len(scene)
            return
        check_masks(decomposition)
        for true, predicted in zip(_labels(scene.labels, decomposition), decomposition.labels().cpu(), strict=True):
            inside = true > 0
            both: tuple[float | None, float | None] = (None, None)
            if inside.any():
                both = adjusted_mutual_information(true[inside].numpy(), predicted[inside].numpy())
            self.scores.append(both[0])
            self.arithmetic.append(both[1])

    def compute(self) -> dict[str, float | int | None]:
        return {"ami_fg": mean_of_counted(self.scores), "ami_fg_arithmetic": mean_of_counted(self.arithmetic)}

    def per_image(self) -> list[float | None]:
        return list(self.scores)

    def merge(self, other: AdjustedMutualInformation) -> None:
        self.scores += other.scores
        self.arithmetic += other.arithmetic


def _labels(labels: Tensor, decomposition: Decomposition) -> Tensor:
    """The true labels [B, H, W] on the CPU, after a check that they are labels of these images."""
    batch, _, _, height, width = decomposition.log_masks.shape
    check_shape(labels, f"{batch} {height} {width}", "labels")
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        raise DataError(f"labels must be integers, but are {labels.dtype}. Convert them with .long().")
    return labels.cpu()

"""Intersection over union: of true objects and slots one to one, and of the foreground as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unscene.errors import check_shape
from unscene.metrics import mean_of_counted
from unscene.metrics.contingency import decomposition_table
from unscene.scene import Decomposition, Scene


def intersection_over_union(table: Tensor) -> Tensor:
    """The overlap of every true label with every predicted one.

    IoU_ij = n_ij / (n_i. + n_.j - n_ij),  0 where both are empty.

    Args:
        table: [B, R, C] pixel counts n_ij.

    Returns:
        [B, R, C] float64 in [0, 1].

    Raises:
        ShapeError: not three axes.
    """
    check_shape(table, "B R C", "table")
    shared = table.double()
    union = shared.sum(dim=2, keepdim=True) + shared.sum(dim=1, keepdim=True) - shared
    return shared / union.clamp_min(1)


def matched_iou(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Match rows with columns one to one, so that the sum of IoU is the largest (Hungarian), and return each row's.

    Args:
        iou: [M, N] of every true object with every prediction.

    Returns:
        [M] the IoU of each object with its match, 0 for an object that finds none.
    """
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = np.zeros(iou.shape[0])
    matched[rows] = iou[rows, columns]
    return matched


@dataclass
class MaskIoU:
    """IoU of the true objects' masks and the slots' hard masks (argmax over all K), matched image by image.

    The background is neither an object nor, where the model states its slot, a candidate for a match. An object that
    finds no slot counts 0; a wholly hidden object, with no pixel, does not count, nor does an image without objects.
        mask_iou: the mean over the objects of each image, then over images.
        mask_iou_objects: the mean over all objects, so that a crowded image weighs more.
    """

    objects: list[list[float]] = field(default_factory=list, init=False)  # the IoU of every object, image by image

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        if scene.labels is None:
            self.objects += [[] for _ in range(len(scene))]
            return
        table = decomposition_table(scene.labels, decomposition)  # [B, M+1, K]
        first_slot = 0 if decomposition.background is None else 1
        iou = intersection_over_union(table)[:, 1:, first_slot:].numpy()
        visible = (table.sum(dim=2) > 0)[:, 1:].numpy()
        self.objects += [matched_iou(one[seen]).tolist() for one, seen in zip(iou, visible, strict=True)]

    def compute(self) -> dict[str, float | int | None]:
        return {
            "mask_iou": mean_of_counted(self.per_image()),
            "mask_iou_objects": mean_of_counted(iou for image in self.objects for iou in image),
        }

    def per_image(self) -> list[float | None]:
        return [mean_of_counted(image) for image in self.objects]

    def merge(self, other: MaskIoU) -> None:
        self.objects += other.objects


@dataclass
class PolarityIoU:
    """IoU of the foreground as a whole, whichever side of the model's partition is called foreground.

    Per image the larger of IoU(P, T) and IoU(not P, T): T are the pixels of true objects, P those of the model's
    foreground slots (argmax), or those of the first of two slots when the model states no background. It is
    `sumScoreIoU` of ReDO (Chen et al., 2019) and of Liu et al. (2019) for the Flowers, averaged over images, not over
    batches of which the last is dropped. An image without an object's pixel is not counted; more than two slots without
    a background are not applicable.
        iou_polarity: the mean over images.
        iou_foreground: the same without the choice; not applicable to a model that states no background.
    """

    either: list[float | None] = field(default_factory=list, init=False)
    stated: list[float | None] = field(default_factory=list, init=False)

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        states = decomposition.background is not None
        if scene.labels is None or not (states or decomposition.num_slots == 2):
            self.either += [None] * len(scene)
            self.stated += [None] * len(scene)
            return
        table = decomposition_table(scene.labels, decomposition).double()  # [B, M+1, K]
        inside, whole = table[:, 1:].sum(dim=1), table.sum(dim=1)  # [B, K] pixels of T in each slot, pixels of it
        counted = inside.sum(dim=1)
        outside_of_first, inside_of_first = whole[:, 1:].sum(dim=1), inside[:, 1:].sum(dim=1)
        rest = inside_of_first / (counted + outside_of_first - inside_of_first).clamp_min(1)
        first = inside[:, 0] / (counted + whole[:, 0] - inside[:, 0]).clamp_min(1)
        for pixels, iou_first, iou_rest in zip(counted.tolist(), first.tolist(), rest.tolist(), strict=True):
            self.either.append(max(iou_first, iou_rest) if pixels else None)
            self.stated.append(iou_rest if pixels and states else None)  # the table's first slot is the background's

    def compute(self) -> dict[str, float | int | None]:
        return {"iou_polarity": mean_of_counted(self.either), "iou_foreground": mean_of_counted(self.stated)}

    def per_image(self) -> list[float | None]:
        return list(self.either)

    def merge(self, other: PolarityIoU) -> None:
        self.either += other.either
        self.stated += other.stated

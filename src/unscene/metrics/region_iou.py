"""Intersection over union: of true objects and slots, one to one or the best, and of all of the foreground."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unscene.metrics import ImageValues, ItemPerImage, MeanOverImages, mean_of_counted
from unscene.metrics.contingency import decomposition_table
from unscene.scene import Prediction, Scene


def intersection_over_union(table: Tensor) -> Tensor:
    """[B, R, C] float64: the overlap of every true label with every predicted one, from pixel counts [B, R, C].

    IoU_ij = n_ij / (n_i. + n_.j - n_ij),  0 where both are empty.
    """
    shared = table.double()
    union = shared.sum(dim=2, keepdim=True) + shared.sum(dim=1, keepdim=True) - shared
    return shared / union.clamp_min(1)


def matched_iou(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """[M] the IoU of each object with its match, 0 without one: M x N are matched one to one for the largest sum."""
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = np.zeros(iou.shape[0])
    matched[rows] = iou[rows, columns]
    return matched


def object_overlaps(labels: Tensor, prediction: Prediction) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """For each image the IoU [M, N] of its visible true objects with all slots, and which slots win a pixel [N].

    If the model states its background slot, that is left out.
    """
    table, first = decomposition_table(labels, prediction), _first_slot(prediction)  # [B, M+1, K]
    visible, found = (table.sum(dim=2) > 0)[:, 1:], (table.sum(dim=1) > 0)[:, first:]
    for image, rows, columns in zip(table, visible.numpy(), found.numpy(), strict=True):
        yield intersection_over_union(image[None])[0, 1:, first:].numpy()[rows], columns


def _first_slot(prediction: Prediction) -> int:
    """The first column of a table that is not the stated background's."""
    return 0 if prediction.background is None else 1


class MaskIoU(ItemPerImage[list[float]]):
    """IoU of the true objects' masks and the slots' hard masks (argmax over all K), matched image by image.

    The background is not an object. If the model states its background slot, that slot cannot be matched. An object
    without a slot counts 0. Objects without a pixel and images without objects do not count.
    """

    def measure(self, scene: Scene, prediction: Prediction) -> Iterable[list[float]] | None:
        if scene.labels is None:
            return None
        return [matched_iou(iou).tolist() for iou, _ in object_overlaps(scene.labels, prediction)]

    def compute(self) -> dict[str, float | int | None]:
        return {
            "mask_iou": mean_of_counted(self.per_image()),
            "mask_iou_objects": mean_of_counted(iou for image in self.images for iou in image or ()),
        }

    def per_image(self) -> list[float | None]:
        return [mean_of_counted(image or ()) for image in self.images]


def _best_overlaps(scene: Scene, prediction: Prediction) -> ImageValues | None:
    if scene.labels is None:
        return None
    overlaps = object_overlaps(scene.labels, prediction)
    of_objects = [mean_of_counted(iou.max(axis=1, initial=0).tolist()) for iou, _ in overlaps]
    if scene.categories is None:
        return {"mbo_instance": of_objects, "mbo_class": [None] * len(scene)}
    table, first = decomposition_table(scene.labels, prediction), _first_slot(prediction)  # [B, M+1, K]
    rows = table.shape[1] - 1
    categories = torch.nn.functional.pad(scene.categories.cpu(), (1, rows))[:, : rows + 1]  # of each row; 0 is no class
    known, classes = torch.unique(categories, return_inverse=True)
    by_class = table.new_zeros(len(table), len(known), table.shape[2])
    by_class.scatter_add_(1, classes.unsqueeze(2).expand_as(table), table)
    best = torch.nn.functional.pad(intersection_over_union(by_class)[:, 1:, first:], (0, 1)).amax(dim=2)
    shown = by_class.sum(dim=2)[:, 1:] > 0
    of_classes = [mean_of_counted(iou[seen].tolist()) for iou, seen in zip(best, shown, strict=True)]
    return {"mbo_instance": of_objects, "mbo_class": of_classes}


mean_best_overlap = partial(MeanOverImages, _best_overlaps, ("mbo_instance", "mbo_class"))
"""Mean best overlap (Pont-Tuset et al., 2017; Seitzer et al., 2023): the IoU of each object with its best slot.

Several objects may have one slot. Mean over the objects of an image, then over the images with an object. `mbo_class`:
the objects of one class in an image are one region, and the mean is over classes. A stated background is no candidate.
"""


def _polarity_of_images(scene: Scene, prediction: Prediction) -> ImageValues | None:
    has_background = prediction.background is not None
    if scene.labels is None or not (has_background or prediction.num_slots == 2):
        return None
    table = decomposition_table(scene.labels, prediction).double()  # [B, M+1, K]
    inside, slots = table[:, 1:].sum(dim=1), table.sum(dim=1)  # [B, K] pixels of T in each slot, pixels of each slot
    objects = inside.sum(dim=1)
    rest_inside, rest = inside[:, 1:].sum(dim=1), slots[:, 1:].sum(dim=1)  # the slots but the first, the background's
    iou_rest = rest_inside / (objects + rest - rest_inside).clamp_min(1)
    iou_first = inside[:, 0] / (objects + slots[:, 0] - inside[:, 0]).clamp_min(1)
    better, counted = torch.maximum(iou_first, iou_rest).tolist(), objects.tolist()
    return {
        "iou_polarity": [iou if pixels else None for iou, pixels in zip(better, counted, strict=True)],
        "iou_foreground": [
            iou if pixels and has_background else None for iou, pixels in zip(iou_rest.tolist(), counted, strict=True)
        ],
    }


iou_polarity = partial(MeanOverImages, _polarity_of_images, ("iou_polarity", "iou_foreground"))
"""IoU of the whole foreground, for the better choice of the foreground side of the model's partition.

Per image the larger of IoU(P, T) and IoU(not P, T): T are the pixels of true objects, P those of the model's foreground
slots (argmax), or of the first of two slots if the model states no background: `sumScoreIoU` of ReDO (Chen et al.,
2019), which Liu et al. (2019) use for the Flowers, but averaged over images. An image without an object's pixel is not
counted; more than two slots without a background are not applicable. `iou_foreground` needs a stated one.
"""

"""COCO's average precision of the boxes, all objects one class.

Lin et al., Microsoft COCO, 2014: precision at 101 levels of recall, IoU .50 to .95, at most 100 boxes an image. COCO's
small, medium and large mean nothing at 64 px and are left out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from unscene.errors import ShapeError, TrainingError
from unscene.metrics import mean_of_counted
from unscene.metrics.contingency import BROKEN_WEIGHTS
from unscene.metrics.region_iou import matched_iou
from unscene.scene import Decomposition, Scene


class ImageBoxes(NamedTuple):
    """The boxes of one image: truth [M, 4] and found [N, 4] as x y width height, and the scores [N]."""

    truth: NDArray[np.float64]
    found: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass
class BoxAveragePrecision:
    """Average precision of the valid boxes against the boxes of the visible objects.

    Without any box found all are 0; without any true box, None. `per_image` is another measure, for one image has no
    useful precision: the mean IoU of its true boxes with the boxes matched to them (Hungarian), 0 for the unmatched.
    """

    images: list[ImageBoxes | None] = field(default_factory=list, init=False)  # None: not applicable

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        if len(scene) != len(decomposition.log_masks):
            raise ShapeError(f"{len(scene)} scenes need as many decompositions, not {len(decomposition.log_masks)}.")
        found, scores, valid = decomposition.boxes, decomposition.box_scores, decomposition.box_valid
        if scene.boxes is None or found is None or scores is None or valid is None:
            self.images += [None] * len(scene)
            return
        arrays = (tensor.detach().cpu().numpy() for tensor in (scores.double(), valid.bool()))
        rows = zip(_xywh(scene.boxes), _xywh(found), *arrays, strict=True)
        batch = [
            ImageBoxes(truth[truth[:, 2:].min(axis=1) > 0], box[keep], score[keep]) for truth, box, score, keep in rows
        ]
        broken = sum(not (np.isfinite(image.found).all() and np.isfinite(image.scores).all()) for image in batch)
        if broken:
            raise TrainingError(f"Valid boxes of {broken} of {len(batch)} images are not finite. {BROKEN_WEIGHTS}")
        self.images += batch

    def compute(self) -> dict[str, float | int | None]:
        images = [image for image in self.images if image is not None]
        names = ("map_50_95", "map_50", "map_75", "ar_100")
        if not any(len(image.truth) for image in images):
            return dict.fromkeys(names)
        if not any(len(image.found) for image in images):
            return dict.fromkeys(names, 0.0)
        return dict(zip(names, coco_precision_and_recall(images), strict=True))

    def per_image(self) -> list[float | None]:
        return [None if image is None else _mean_matched_iou(image) for image in self.images]

    def merge(self, other: BoxAveragePrecision) -> None:
        self.images += other.images


def coco_precision_and_recall(images: list[ImageBoxes]) -> tuple[float, float, float, float]:
    """Average precision at .50:.95, .50 and .75, and recall at .50:.95, by pycocotools.

    There must be at least one true box and one found box.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = _coco([(image.truth, np.zeros(len(image.truth))) for image in images])
        found = _coco([(image.found, image.scores) for image in images])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"].squeeze((2, 3, 4))  # [10 thresholds, 101 recalls]
    at_50, at_75 = precision[0].mean(), precision[5].mean()
    return float(precision.mean()), float(at_50), float(at_75), float(evaluation.eval["recall"].mean())


def _coco(images: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> COCO:
    """Boxes [N, 4] and scores [N] of each image as a COCO data set of one class."""
    rows = [
        {"image_id": image, "bbox": box, "score": score, "area": box[2] * box[3], "category_id": 1, "iscrowd": 0}
        for image, arrays in enumerate(images)
        for box, score in zip(*(array.tolist() for array in arrays), strict=True)
    ]
    annotations = [row | {"id": number} for number, row in enumerate(rows, start=1)]  # COCOeval takes 0 for "no match"
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number, _ in enumerate(images)],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _mean_matched_iou(image: ImageBoxes) -> float | None:
    if not len(image.truth):
        return None
    if not len(image.found):
        return 0.0
    iou = coco_mask.iou(image.truth, image.found, [0] * len(image.found))
    return mean_of_counted(matched_iou(iou).tolist())


def _xywh(boxes: Tensor) -> NDArray[np.float64]:
    """[B, N, 4] x1 y1 x2 y2, end exclusive, as x y width height; negative sides become 0.

    COCOeval ignores a found box of negative area, which must count as wrong.
    """
    corners = boxes.detach().cpu().double().numpy()
    sides = corners[..., 2:] - corners[..., :2]
    return np.concatenate([corners[..., :2], np.maximum(sides, 0)], axis=-1)

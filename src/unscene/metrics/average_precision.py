"""COCO's average precision of the boxes or of the masks, all objects one class.

Lin et al., Microsoft COCO, 2014: precision at 101 levels of recall, IoU .50 to .95, at most 100 objects an image, those
of the highest scores. COCO's small, medium and large mean nothing at 64 px and are left out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from unscene.errors import ShapeError, TrainingError
from unscene.metrics import ItemPerImage, mean_of_counted
from unscene.metrics.contingency import BROKEN_WEIGHTS
from unscene.metrics.region_iou import matched_iou, object_overlaps
from unscene.scene import Prediction, Scene, Segmentation, boxes_of_labels

_MOST_FOUND = 100  # of an image, as in COCO


class Overlaps(NamedTuple):
    """The objects of one image: the IoU of M true with N found ones [M, N], and the scores [N] of the latter."""

    iou: NDArray[np.float64]
    scores: NDArray[np.float64]


class AveragePrecision(ItemPerImage[Overlaps]):
    """Average precision of found against true objects.

    Without any object found all are 0; without any true object, None. `per_image` is another measure, for one image has
    no useful precision: the mean IoU of its true objects with those matched to them (Hungarian), 0 for the unmatched.
    `names` are those of precision at .50:.95, .50 and .75, and of recall at .50:.95.
    """

    def __init__(self, overlaps: Callable[[Scene, Prediction], list[Overlaps] | None], names: Sequence[str]) -> None:
        super().__init__()
        self.overlaps, self.names = overlaps, names

    def measure(self, scene: Scene, prediction: Prediction) -> list[Overlaps] | None:
        return self.overlaps(scene, prediction)

    def compute(self) -> dict[str, float | int | None]:
        images = [image for image in self.images if image is not None]
        return dict(zip(self.names, coco_precision_and_recall(images), strict=True))

    def per_image(self) -> list[float | None]:
        return [None if image is None else mean_of_counted(matched_iou(image.iou).tolist()) for image in self.images]


def coco_precision_and_recall(images: Sequence[Overlaps]) -> tuple[float | None, ...]:
    """Average precision at .50:.95, .50 and .75, and recall at .50:.95, by pycocotools.

    Without any object found all are 0; without any true object, None.
    """
    if not any(image.iou.shape[0] for image in images):
        return (None,) * 4
    if not any(image.iou.shape[1] for image in images):
        return (0.0,) * 4
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth, found = _coco([np.zeros(len(image.iou)) for image in images]), _coco([image.scores for image in images])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [_MOST_FOUND]
        evaluation.computeIoU = lambda image, category: _by_score(images[image])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"].squeeze((2, 3, 4))  # [10 thresholds, 101 recalls]
    at_50, at_75 = precision[0].mean(), precision[5].mean()
    return float(precision.mean()), float(at_50), float(at_75), float(evaluation.eval["recall"].mean())


def _by_score(image: Overlaps) -> NDArray[np.float64]:
    """[N, M] the IoU in COCOeval's order: the highest score first, of equal ones the earlier object."""
    return image.iou.T[np.argsort(-image.scores, kind="stable")[:_MOST_FOUND]]


def _coco(images: Sequence[NDArray[np.float64]]) -> COCO:
    """The scores [N] of the objects of each image as a COCO data set of one class."""
    rows = [(image, score) for image, scores in enumerate(images) for score in scores.tolist()]
    fields = {"category_id": 1, "area": 1, "iscrowd": 0}
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number, _ in enumerate(images)],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [  # COCOeval takes id 0 for "no match"
            {"id": number, "image_id": image, "score": score, **fields} for number, (image, score) in enumerate(rows, 1)
        ],
    }
    coco.createIndex()
    return coco


def _box_overlaps(scene: Scene, prediction: Prediction) -> list[Overlaps] | None:
    """Valid boxes of a model, or the boxes around a segmentation's objects, and the boxes of the visible objects."""
    masks = prediction.label_maps if isinstance(prediction, Segmentation) else prediction.log_masks
    if len(scene) != len(masks):
        raise ShapeError(f"{len(scene)} scenes need as many decompositions, not {len(masks)}.")
    found: Tensor | None
    valid: Tensor | None
    if isinstance(prediction, Segmentation):
        found = torch.from_numpy(boxes_of_labels(masks.clamp_min(0).cpu().numpy(), prediction.num_slots - 1))
        scores, valid = object_scores(prediction), found.any(dim=2)
    else:
        found, scores, valid = prediction.boxes, prediction.box_scores, prediction.box_valid
    if scene.boxes is None or found is None or scores is None or valid is None:
        return None
    tensors = (scene.boxes.double(), found.double(), scores.double(), valid.bool())
    arrays = (tensor.detach().cpu().numpy() for tensor in tensors)
    rows = [
        (true[(true[:, 2:] > true[:, :2]).all(axis=1)], boxes[keep], score[keep])
        for true, boxes, score, keep in zip(*arrays, strict=True)
    ]
    broken = sum(not (np.isfinite(boxes).all() and np.isfinite(score).all()) for _, boxes, score in rows)
    if broken:
        raise TrainingError(f"Valid boxes of {broken} of {len(rows)} images are not finite. {BROKEN_WEIGHTS}")
    return [Overlaps(box_iou(true, boxes), score) for true, boxes, score in rows]


def _mask_overlaps(scene: Scene, prediction: Prediction) -> list[Overlaps] | None:
    scores = object_scores(prediction)
    if scene.labels is None or scores is None:
        return None
    rows = zip(object_overlaps(scene.labels, prediction), scores.cpu().numpy(), strict=True)
    return [Overlaps(iou[:, found], score[found]) for (iou, found), score in rows]


def object_scores(prediction: Prediction) -> Tensor | None:
    """[B, N] the scores of the objects' slots: a model's are those of its boxes, 0 without a valid one.

    None for a model without boxes. The objects of a segmentation that states no scores have 1.
    """
    if isinstance(prediction, Segmentation):
        shape = len(prediction.label_maps), prediction.num_slots - 1
        return torch.ones(shape).double() if prediction.scores is None else prediction.scores.double()
    if prediction.box_scores is None or prediction.box_valid is None:
        return None
    return prediction.box_scores.detach().double().where(prediction.box_valid.bool(), 0)


def box_iou(true: NDArray[np.floating], found: NDArray[np.floating]) -> NDArray[np.float64]:
    """[M, N] the IoU of boxes [M, 4] and [N, 4], `x1 y1 x2 y2`, end exclusive; a negative side counts as 0."""
    if not len(true) or not len(found):
        return np.zeros((len(true), len(found)))
    return np.asarray(coco_mask.iou(_xywh(true), _xywh(found), [0] * len(found)))


def _xywh(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], np.maximum(corners[:, 2:] - corners[:, :2], 0)], axis=1)


box_average_precision = partial(AveragePrecision, _box_overlaps, ("map_50_95", "map_50", "map_75", "ar_100"))
"""Average precision of the valid boxes, or of the boxes around the labels of a segmentation."""

mask_average_precision = partial(
    AveragePrecision, _mask_overlaps, ("mask_map_50_95", "mask_map_50", "mask_map_75", "mask_ar_100")
)
"""Average precision of the masks (argmax over all K); a slot's score is that of its box, so a model needs boxes."""

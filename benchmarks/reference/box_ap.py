"""COCO's average precision of the boxes by pycocotools as it is, from annotations made box by box."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from unscene.errors import ShapeError
from unscene.scene import Decomposition, Scene


def plain_box_ap(scene: Scene, decomposition: Decomposition) -> float:
    """Return the average precision at IoU .50:.95, all areas, one class.

    Args:
        scene: with boxes; a row without area is none.
        decomposition: with boxes.

    Raises:
        ShapeError: one of them has no boxes.
    """
    if (
        scene.boxes is None
        or decomposition.boxes is None
        or decomposition.box_scores is None
        or decomposition.box_valid is None
    ):
        raise ShapeError("the box AP needs a scene with boxes and a decomposition with boxes.")
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(len(scene)):
        for box in scene.boxes[image]:
            if _area(box) > 0:
                truth.append(_annotation(image, box, len(truth) + 1))
        for box, score, valid in zip(
            decomposition.boxes[image], decomposition.box_scores[image], decomposition.box_valid[image], strict=True
        ):
            if valid:
                found.append(_annotation(image, box, len(found) + 1) | {"score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(scene))],
            "categories": [{"id": 1}],
            "annotations": truth,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _annotation(image: int, box: Tensor, number: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box.double().tolist()
    width, height = x2 - x1, y2 - y1
    annotation = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0}
    return annotation | {"bbox": [x1, y1, width, height], "area": width * height}


def _area(box: Tensor) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))

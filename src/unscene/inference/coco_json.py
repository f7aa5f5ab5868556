"""Objects as a COCO file (Lin et al., Microsoft COCO, 2014): run-length masks, boxes, scores, one category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from unscene.inference.found_objects import FoundObjects

CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}


def coco_annotations(found: FoundObjects, image_id: int) -> list[dict[str, Any]]:
    """Return the objects of one image as COCO annotations, without the `id` that `coco_json` gives.

    Besides COCO's fields an annotation has `score`, `slot` and, where the model has them, `latent` and `location`
    (y and x in 0..1 of the image, from its top left).
    """
    annotations = []
    for row, slot in enumerate(found.slots.tolist()):
        runs = coco_mask.encode(np.asfortranarray(found.labels == slot, dtype=np.uint8))
        x1, y1, x2, y2 = (round(side, 2) for side in found.boxes[row].tolist())
        annotation: dict[str, Any] = {
            "image_id": image_id,
            "category_id": CATEGORY["id"],
            "segmentation": {"size": list(found.labels.shape), "counts": runs["counts"].decode("ascii")},
            "area": int(found.areas[row]),
            "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
            "iscrowd": 0,
            "score": round(float(found.scores[row]), 5),
            "slot": slot,
        }
        if found.latents is not None:
            annotation["latent"] = [round(number, 5) for number in found.latents[row].tolist()]
        if found.locations is not None:
            annotation["location"] = [round(number, 4) for number in found.locations[row].tolist()]
        annotations.append(annotation)
    return annotations


def coco_json(
    images: Sequence[tuple[str, int, int]], annotations: Sequence[Mapping[str, Any]], info: Mapping[str, Any]
) -> dict[str, Any]:
    """Put images and their annotations together as one COCO data set, for `json.dump`; all ids begin with 1.

    pycocotools' `loadRes` also takes the list of annotations, as the results of a detector.

    Args:
        images: file name, H and W of each; `image_id` 1 is the first.
        annotations: of these images, by `coco_annotations`.
        info: further fields of COCO's `info`, for instance the source of the masks.
    """
    return {
        "info": {"description": "objects found by unscene, without any label", **info},
        "licenses": [],
        "images": [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, (name, height, width) in enumerate(images, start=1)
        ],
        "categories": [CATEGORY],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],
    }

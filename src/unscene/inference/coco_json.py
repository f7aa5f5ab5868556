"""Objects as a COCO file: run-length masks, boxes, scores, one category. What reads COCO reads this.

Lin et al., Microsoft COCO, 2014; the run lengths are pycocotools' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unscene.errors import ShapeError, check_shape

CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}


@dataclass(frozen=True)
class CocoObject:
    """One object of one image. Made by `coco_object`.

    Attributes:
        image: position of its image in the list of images, from 0.
        slot: label of the slot that found it, from 1.
        segmentation: run lengths, `{"size": [H, W], "counts": str}`.
        area: pixels of the mask.
        box: `x1 y1 x2 y2` in pixels, end exclusive.
        score: in [0, 1].
        latent: [D], or None for a model without latents.
        location: y and x in 0..1 of the image; None for a model without locations.
    """

    image: int
    slot: int
    segmentation: dict[str, Any]
    area: int
    box: tuple[float, float, float, float]
    score: float
    latent: tuple[float, ...] | None = None
    location: tuple[float, float] | None = None


def coco_object(
    image: int,
    slot: int,
    mask: NDArray[np.bool_],
    box: Sequence[float],
    score: float,
    latent: Sequence[float] | None = None,
    location: Sequence[float] | None = None,
) -> CocoObject:
    """Make an object of its mask [H, W]; the other arguments are the fields of `CocoObject`.

    Raises:
        ShapeError: the mask has other axes or is not of booleans, the box has not four sides, or the location not two
            numbers.
    """
    check_shape(mask, "H W", "mask")
    if mask.dtype != np.bool_ or len(box) != 4:
        raise ShapeError(f"mask must be bool and box x1 y1 x2 y2, but they are {mask.dtype} and {list(box)}.")
    if location is not None and len(location) != 2:
        raise ShapeError(f"location must be y and x, but is {list(location)}.")
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    segmentation = {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}
    x1, y1, x2, y2 = (float(side) for side in box)
    numbers = None if latent is None else tuple(round(float(number), 5) for number in latent)
    place = None if location is None else (round(float(location[0]), 4), round(float(location[1]), 4))
    return CocoObject(image, slot, segmentation, int(mask.sum()), (x1, y1, x2, y2), float(score), numbers, place)


def coco_json(
    images: Sequence[tuple[str, int, int]], objects: Sequence[CocoObject], info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Put images and objects together as one COCO data set; all ids begin with 1.

    Besides COCO's fields an annotation has `score`, `slot` and, where the model has them, `latent` and
    `location` (y and x in 0..1 of the image, from its top left). The list of
    annotations may also be given to pycocotools' `loadRes` as the results of a detector.

    Args:
        images: file name, H and W of each.
        objects: of these images, in any order.
        info: further fields of COCO's `info`, for instance where the masks come from.

    Returns:
        What `json.dump` writes.

    Raises:
        ShapeError: an object is of no image of the list, or its mask is of another size.
    """
    for each in objects:
        sizes = [list(images[each.image][1:])] if 0 <= each.image < len(images) else []
        if each.segmentation["size"] not in sizes:
            raise ShapeError(
                f"an object of image {each.image} has a mask of {each.segmentation['size']} pixels, but the "
                f"{len(images)} images (counted from 0) have there: {sizes or 'none'}."
            )
    return {
        "info": {"description": "objects found by unscene, without any label", **(info or {})},
        "licenses": [],
        "images": [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, (name, height, width) in enumerate(images, start=1)
        ],
        "categories": [CATEGORY],
        "annotations": [_annotation(number, each) for number, each in enumerate(objects, start=1)],
    }


def _annotation(number: int, found: CocoObject) -> dict[str, Any]:
    x1, y1, x2, y2 = (round(side, 2) for side in found.box)
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": found.image + 1,
        "category_id": CATEGORY["id"],
        "segmentation": found.segmentation,
        "area": found.area,
        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
        "iscrowd": 0,
        "score": round(found.score, 5),
        "slot": found.slot,
    }
    if found.latent is not None:
        annotation["latent"] = list(found.latent)
    if found.location is not None:
        annotation["location"] = list(found.location)
    return annotation

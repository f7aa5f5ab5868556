"""The objects of one image: labels, boxes and scores at the image's own resolution, and the same as COCO JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unscene.data.image_resize import ResizeGeometry
from unscene.data.samples import boxes_of_labels
from unscene.errors import ShapeError
from unscene.scene import Decomposition

_PIXELS_AT_ONCE = 2**22  # of an image; a larger one is segmented in stripes
CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}


@dataclass(frozen=True)
class FoundObjects:
    """The N objects of one image: the foreground slots that win enough pixels."""

    labels: NDArray[np.integer]  # [H, W], 0 is the background, `n` the foreground slot `n`, counted from 1
    slots: NDArray[np.int64]  # [N] labels of the objects
    areas: NDArray[np.int64]  # [N] pixels of the objects
    boxes: NDArray[np.float32]  # [N, 4] `x1 y1 x2 y2` around the objects' pixels, end exclusive
    scores: NDArray[np.float32]  # [N] in 0..1: of the model's box, or without one the mean share of the pixels
    model_boxes: NDArray[np.float32] | None  # [N, 4] as the model states them, zero rows for none; None without boxes
    latents: NDArray[np.float32] | None  # [N, D]; None if the model has none
    locations: NDArray[np.float32] | None  # [N, 2] y and x in 0..1 of the image, as the model states them, or None


def found_objects(
    decomposition: Decomposition, index: int, geometry: ResizeGeometry, min_area: int = 1, min_score: float = 0.0
) -> FoundObjects:
    """Return the objects of image `index` of a decomposition, whose model saw the image resized by `geometry`.

    The masks are enlarged first and then compete for each pixel, so that borders are smooth. Objects of fewer than
    `min_area` pixels or of a lower score than `min_score` become background, as do pixels outside of a crop, which the
    model did not see.
    """
    foreground = np.array(decomposition.foreground, np.int64)
    labels = np.empty((geometry.height, geometry.width), np.uint8)
    areas, share_sums = np.zeros((2, len(foreground) + 1))
    rows = max(1, _PIXELS_AT_ONCE // geometry.width)
    for top in range(0, geometry.height, rows):
        stripe, shares = _labels_and_shares(decomposition, index, geometry, (top, min(top + rows, geometry.height)))
        labels[top : top + rows] = stripe
        areas += np.bincount(stripe.ravel(), minlength=len(areas))
        share_sums += np.bincount(stripe.ravel(), weights=shares.ravel(), minlength=len(areas))
    slots = np.flatnonzero(areas[1:] >= max(min_area, 1)) + 1
    scores = (share_sums[slots] / areas[slots]).clip(0, 1).astype(np.float32)
    model_boxes, model_scores, valid = decomposition.boxes, decomposition.box_scores, decomposition.box_valid
    stated = None
    if model_boxes is not None and model_scores is not None and valid is not None:
        stated = geometry.restore_boxes(model_boxes[index].float().numpy())[slots - 1]
        stated[~valid[index].bool().numpy()[slots - 1]] = 0
        scores = np.where(stated.any(axis=1), model_scores[index].float().numpy()[slots - 1], scores)
    kept = scores >= min_score
    slots, scores, stated = slots[kept], scores[kept], None if stated is None else stated[kept]
    if len(slots) < (areas[1:] > 0).sum():
        labels = np.where(np.isin(np.arange(len(areas)), slots), np.arange(len(areas)), 0).astype(np.uint8)[labels]
    latents, locations = decomposition.latents, decomposition.locations
    return FoundObjects(
        labels=labels,
        slots=slots,
        areas=areas[slots].astype(np.int64),
        boxes=boxes_of_labels(labels[None], len(foreground))[0][slots - 1],
        scores=scores,
        model_boxes=stated,
        latents=None if latents is None else latents[index].float().numpy()[foreground[slots - 1]],
        locations=None
        if locations is None
        else geometry.restore_locations(locations[index].float().numpy())[slots - 1],
    )


def _labels_and_shares(
    decomposition: Decomposition, index: int, geometry: ResizeGeometry, rows: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The label that wins each pixel of some rows, and its share; one slot at a time, for memory's sake."""
    labels = np.zeros((rows[1] - rows[0], geometry.width), np.uint8)
    shares = np.zeros(labels.shape, np.float32)
    foreground = decomposition.foreground
    for slot in range(decomposition.num_slots):
        label = foreground.index(slot) + 1 if slot in foreground else 0
        mask = decomposition.log_masks[index, slot].float().exp().numpy()  # [1, size, size]
        restored = geometry.restore(mask, fill=float(label == 0), rows=rows)[0]
        wins = restored > shares  # if shares are equal, the first slot wins, as in argmax
        labels[wins] = label
        np.maximum(shares, restored, out=shares)
    return labels, shares


def coco_annotations(found: FoundObjects, image_id: int) -> list[dict[str, Any]]:
    """Return the objects of one image as COCO annotations, without the `id` that `coco_json` gives.

    `bbox` is the mask's. Besides COCO's fields an annotation has `score`, `slot` and, if the model has them,
    `model_bbox`, `latent` and `location` (y and x in 0..1 of the image, from its top left).
    """
    annotations = []
    for row, slot in enumerate(found.slots.tolist()):
        runs = _run_lengths(found.labels, slot, found.boxes[row])
        annotation: dict[str, Any] = {
            "image_id": image_id,
            "category_id": CATEGORY["id"],
            "segmentation": {"size": list(found.labels.shape), "counts": runs["counts"].decode("ascii")},
            "area": int(found.areas[row]),
            "bbox": _bbox(found.boxes[row]),
            "iscrowd": 0,
            "score": round(float(found.scores[row]), 5),
            "slot": slot,
        }
        if found.model_boxes is not None and found.model_boxes[row].any():
            annotation["model_bbox"] = _bbox(found.model_boxes[row])
        if found.latents is not None:
            annotation["latent"] = [round(number, 5) for number in found.latents[row].tolist()]
        if found.locations is not None:
            annotation["location"] = [round(number, 4) for number in found.locations[row].tolist()]
        annotations.append(annotation)
    return annotations


def _run_lengths(labels: NDArray[np.integer], label: int, box: NDArray[np.float32]) -> dict[str, Any]:
    """COCO's run lengths of a label's pixels, all within a box: an image of many objects is not searched for each."""
    x1, y1, x2, y2 = box.astype(int).tolist()
    height, width = labels.shape
    columns, rows = np.nonzero((labels[y1:y2, x1:x2] == label).T)
    inside = np.zeros(height * (x2 - x1) + 2, np.int8)  # of these columns, one after another, with a rim
    inside[1 + columns * height + rows + y1] = 1
    ends = np.flatnonzero(np.diff(inside)) + height * x1
    counts = np.diff(ends, prepend=0, append=height * width).tolist()
    counts = counts[: len(ends) + (counts[-1] > 0)]
    return dict(coco_mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width))


def _bbox(box: NDArray[np.float32]) -> list[float]:
    """COCO's x, y, width, height; the sides are rounded before their difference."""
    x1, y1, x2, y2 = (round(side, 2) for side in box.tolist())
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def coco_json(
    images: Sequence[tuple[str, int, int]], annotations: Sequence[Mapping[str, Any]], info: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a COCO data set (Lin et al., Microsoft COCO, 2014) for `json.dump`; all ids begin with 1.

    `images` are (file name, H, W), and `info` holds further fields of COCO's `info`. pycocotools' `loadRes` also takes
    the list of annotations, as the results of a detector.
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


def decomposition_coco(decomposition: Decomposition, file_names: Sequence[str]) -> dict[str, Any]:
    """The objects of all images at the model's resolution as a COCO data set, see `Decomposition.to_coco`."""
    found = _found_in_squares(decomposition)
    names = file_names or [str(number) for number in range(1, len(found) + 1)]
    if len(names) != len(found):
        raise ShapeError(f"file_names must be one for each of the {len(found)} images, but are {len(names)}.")
    images = [(name, *objects.labels.shape) for name, objects in zip(names, found, strict=True)]
    return coco_json(images, [row for n, objects in enumerate(found, 1) for row in coco_annotations(objects, n)], {})


def decomposition_detections(decomposition: Decomposition) -> list[Any]:
    """The objects of all images at the model's resolution, see `Decomposition.to_supervision`."""
    import supervision

    return [
        supervision.Detections(
            xyxy=found.boxes,
            mask=found.labels == found.slots[:, None, None],
            confidence=found.scores,
            class_id=found.slots,
        )
        for found in _found_in_squares(decomposition)
    ]


def _found_in_squares(decomposition: Decomposition) -> list[FoundObjects]:
    decomposition = decomposition.map(lambda tensor: tensor.detach().cpu())
    side = int(decomposition.log_masks.shape[-1])
    geometry = ResizeGeometry(side, side, side, (0, 0, side, side), (0, 0, side, side))
    return [found_objects(decomposition, index, geometry) for index in range(len(decomposition.log_masks))]

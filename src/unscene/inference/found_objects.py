"""The objects of one image: labels, boxes, scores and contrasts at its own resolution, and the same as COCO JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy import ndimage

from unscene.data.image_resize import ResizeGeometry
from unscene.errors import RecipeError, ShapeError
from unscene.inference.alike_neighbours import join_alike_neighbours
from unscene.scene import Decomposition, boxes_of_labels

_PIXELS_AT_ONCE = 2**22  # of an image; a larger one is segmented in stripes
_CONTRAST_PIXELS = 2**16  # of an object and its surroundings; of more, every second, third ... row and column counts
_SIGNIFICANT = 4.0  # standard errors: a model chooses its masks among many, so noise alone gives two or three
MIN_CONTRAST = 0.2  # above the contrasts that models find in noise, below those of objects (docs/guide/large_images.md)
_LEAST_GROUND = 20  # pixels of background that tell its colour
_LARGE = 1.2  # usual areas, above which an object may be several that touch
LIMITS = ("min_area", "min_score", "min_contrast", "outline", "join_alike", "split_parts")  # options of the objects
CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}

SplitParts = bool | Literal["touching"]
Part = tuple[slice, slice, NDArray[np.bool_]]  # rows, columns, and the mask within them


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
    colours: NDArray[np.float32] | None = None  # [N, 3] mean red, green, blue in 0..255; None before `refine`
    contrasts: NDArray[np.float32] | None = None  # [N] in 0..1, see `contrast`; None before `refine`

    def centroids(self) -> NDArray[np.float64]:
        """[N, 2] y and x of the mean pixel, in pixels from the top left; the middle of the first pixel is 0, 0."""
        middles = np.empty((len(self.slots), 2))
        for row, (label, (x1, y1, x2, y2)) in enumerate(self._windows()):
            rows, columns = np.nonzero(self.labels[y1:y2, x1:x2] == label)
            middles[row] = y1 + rows.mean(), x1 + columns.mean()
        return middles

    def around(self, row: int) -> tuple[slice, slice]:
        """Rows and columns of an object and its surroundings."""
        x1, y1, x2, y2 = self.boxes[row].astype(int).tolist()
        margin = max(2, round(float(self.areas[row]) ** 0.5 / 2))
        return slice(max(0, y1 - margin), y2 + margin), slice(max(0, x1 - margin), x2 + margin)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays that have a row for each object."""
        return {name: array for name, array in vars(self).items() if name != "labels" and array is not None}

    def _windows(self) -> Iterator[tuple[int, list[int]]]:
        return zip(self.slots.tolist(), self.boxes.astype(int).tolist(), strict=True)


def check_limits(
    min_score: float = 0.0,
    min_contrast: float = 0.0,
    outline: float = 0.0,
    min_area: int = 0,
    join_alike: bool = False,
    split_parts: SplitParts = False,
    **others: Any,
) -> None:
    """Raise a RecipeError if a limit of the objects is out of its range."""
    for limit, least in {"score": min_score, "contrast": min_contrast}.items():
        if not 0 <= least <= 1:
            raise RecipeError(f"the least {limit} of an object must be from 0 to 1, but is {least}.")
    if not 0 <= outline < 1:
        raise RecipeError(f"the outline of an object must be from 0 to below 1, but is {outline}.")
    if not min_area >= 0:
        raise RecipeError(f"the least area of an object must be 0 pixels or more, but is {min_area}.")
    if join_alike not in (False, True):
        raise RecipeError(f"join_alike must be True or False, not {join_alike!r}.")
    if split_parts not in (False, True, "touching"):
        raise RecipeError(f"split_parts must be True, False or 'touching', not {split_parts!r}.")


def found_objects(
    decomposition: Decomposition, index: int, geometry: ResizeGeometry, min_score: float = 0.0
) -> FoundObjects:
    """Return the objects of image `index` of a decomposition, whose model saw the image resized by `geometry`.

    The masks are enlarged first and then compete for each pixel, so that borders are smooth. Objects of a lower score
    than `min_score` become background, as do pixels outside of a crop, which the model did not see.
    """
    foreground = np.array(decomposition.foreground, np.int64)
    labels = np.empty((geometry.height, geometry.width), np.min_scalar_type(len(foreground)))
    areas, share_sums = np.zeros((2, len(foreground) + 1))
    rows = max(1, _PIXELS_AT_ONCE // geometry.width)
    for top in range(0, geometry.height, rows):
        stripe, shares = _labels_and_shares(decomposition, index, geometry, (top, min(top + rows, geometry.height)))
        labels[top : top + rows] = stripe
        areas += np.bincount(stripe.ravel(), minlength=len(areas))
        share_sums += np.bincount(stripe.ravel(), weights=shares.ravel(), minlength=len(areas))
    slots = np.flatnonzero(areas[1:]) + 1
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
        labels = np.where(np.isin(np.arange(len(areas)), slots), np.arange(len(areas)), 0).astype(labels.dtype)[labels]
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
) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
    """The label that wins each pixel of some rows, and its share; one slot at a time, for memory's sake."""
    foreground = decomposition.foreground
    labels = np.zeros((rows[1] - rows[0], geometry.width), np.min_scalar_type(len(foreground)))
    shares = np.zeros(labels.shape, np.float32)
    for slot in range(decomposition.num_slots):
        label = foreground.index(slot) + 1 if slot in foreground else 0
        mask = decomposition.log_masks[index, slot, 0].float().exp().numpy()  # [size, size]
        restored = geometry.restore(mask, fill=float(label == 0), rows=rows)
        wins = restored > shares  # if shares are equal, the first slot wins, as in argmax
        labels[wins] = label
        np.maximum(shares, restored, out=shares)
    return labels, shares


def refine(
    found: FoundObjects,
    pixels: NDArray[np.uint8],
    *,
    min_area: int = 1,
    min_contrast: float = 0.0,
    outline: float = 0.0,
    join_alike: bool = False,
    split_parts: SplitParts = False,
    renumber: bool = False,
) -> FoundObjects:
    """Measure the colours and contrasts of an image's objects, and turn those below a limit into background.

    Args:
        found: the objects; their label map is changed.
        pixels: [H, W, 3], the image.
        min_area: least number of an object's pixels.
        min_contrast: least `contrast` of an object.
        outline: an object keeps the pixels whose colour is more than this share of the way from the median colour of
            the background around it to its own median colour; 0 keeps all. First of all.
        join_alike: neighbours of alike colours become one object, see `alike_neighbours`; after `split_parts`, but
            before "touching".
        split_parts: each connected part (of 8 neighbours) is an object of its own, with the scores, latents and boxes
            that the model states for all parts together. "touching": then parts larger than usual are divided by
            `touching_parts`, too.
        renumber: number the objects from 1 without a gap; parts are numbered so in any case.
    """
    if outline:
        found = _outlined(found, pixels, outline)
    if split_parts:
        found, renumber = _split(found, mask_parts), True
    if join_alike:
        found = join_alike_neighbours(found, pixels)
    counted = found.areas[found.areas >= min_area]
    if split_parts == "touching" and len(counted):
        found = _split(found, partial(touching_parts, usual_area=float(np.median(counted))))
    colours, contrasts = np.zeros((len(found.slots), 3), np.float32), np.zeros(len(found.slots), np.float32)
    for row, (label, (x1, y1, x2, y2)) in enumerate(found._windows()):
        if found.areas[row] >= min_area:
            mask = found.labels[y1:y2, x1:x2] == label
            colours[row] = pixels[y1:y2, x1:x2][mask].mean(axis=0)
            around = found.around(row)
            contrasts[row] = contrast(pixels[around], found.labels[around], label)
    kept = np.flatnonzero((found.areas >= min_area) & (contrasts >= min_contrast))
    found = _rows(replace(found, colours=colours, contrasts=contrasts), kept)
    new_labels = np.zeros(int(found.labels.max(initial=0)) + 1, found.labels.dtype)
    new_labels[found.slots] = np.arange(1, len(kept) + 1) if renumber else found.slots
    rows = max(1, _PIXELS_AT_ONCE // max(1, found.labels.shape[1]))
    for top in range(0, len(found.labels), rows):
        found.labels[top : top + rows] = new_labels[found.labels[top : top + rows]]
    return replace(found, slots=new_labels[found.slots].astype(np.int64))


def _outlined(found: FoundObjects, pixels: NDArray[np.uint8], outline: float) -> FoundObjects:
    """Turn the pixels beyond an object's outline into background, see `refine`.

    Colours are smoothed by one pixel. Single pixels are no part of an object, and its holes are filled. An object
    without background around it stays as it is, as does one of which nothing would be left.
    """
    removed = []
    for row, label in enumerate(found.slots.tolist()):
        around = found.around(row)
        labels, colours = found.labels[around], ndimage.gaussian_filter(pixels[around].astype(np.float32), (1, 1, 0))
        mask, ground = labels == label, labels == 0
        if ground.sum() < _LEAST_GROUND:
            continue
        from_ground = colours - np.median(colours[ground], axis=0)
        kept = mask
        for _ in range(2):  # the second time, the object's colour is that without its edge
            if kept.any():
                colour = np.median(from_ground[kept], axis=0)
                kept = ndimage.binary_opening(mask & (from_ground @ colour > outline * (colour @ colour)))
                kept = ndimage.binary_fill_holes(kept) & mask
        if kept.any():
            removed.append((around, mask & ~kept))
    for around, pixels_of_one in removed:  # at the end, since the ground around others is measured without them
        found.labels[around][pixels_of_one] = 0
    boxes = boxes_of_labels(found.labels[None], int(found.labels.max(initial=0)))[0][found.slots - 1]
    areas = np.bincount(found.labels.ravel(), minlength=int(found.slots.max(initial=0)) + 1)[found.slots]
    return replace(found, areas=areas.astype(np.int64), boxes=boxes)


def contrast(pixels: NDArray[np.uint8], labels: NDArray[np.integer], label: int) -> float:
    """How clearly an object's colours differ from the background around it, beyond noise and an even gradient; 0..1.

    A pixel counts by the mean of its four neighbours, since a mask may follow the noise of its own pixels; one of the
    background by those of the background, or a thin object's colours would count as the background's noise. Least
    squares fit these colours as a + b y + c x + d m, where m is 1 in the object and 0 around it. With the residual
    variance s^2, plus one grey level, and the standard error e of d, the contrast is D / (D + s^2), where
    D = max(0, |d|^2 - 16 e^2) / 4 is the variance between object and background.

    Stripes may have the ground's colour in the mean. With g^2 the residual variance of the background alone, plus one
    grey level, q^2 the mean squared distance of the object's pixels from a + b y + c x, and n and m the pixels of both,
    a second contrast is S / (S + g^2), where S = max(0, q^2 - g^2 - 4 g^2 sqrt(8 / n + 8 / m)) / 4. The larger one
    counts. So an object that is noisier than its ground has contrast; stripes of one pixel, which the neighbours'
    mean hides, have none. Other objects do not count, unless there is hardly any background.

    Args:
        pixels: [h, w, 3], the object with its surroundings.
        labels: [h, w], 0 is the background.
        label: the object's.
    """
    step = 1 + int((labels.size / _CONTRAST_PIXELS) ** 0.5)
    labels, pixels = labels[::step, ::step], pixels[::step, ::step]
    mask = labels == label
    compared = mask | (labels == 0)
    if 4 * (compared.sum() - mask.sum()) < min(mask.sum(), 40):
        compared[:] = True
    rows, columns = np.nonzero(compared)
    inside = mask[compared].astype(np.float64)
    if len(inside) < 6 or inside.min() == inside.max():
        return 0.0
    factors = np.stack([np.ones(len(inside)), rows - rows.mean(), columns - columns.mean(), inside], axis=1)
    inverse = np.linalg.inv(factors.T @ factors + 1e-6 * np.eye(4))
    ground = (compared & ~mask).astype(np.float32)[..., None]
    on_ground = _neighbours(ground)
    neighbours = np.where(
        ground * on_ground > 0,
        _neighbours(pixels * ground) / on_ground.clip(1),
        _neighbours(pixels.astype(np.float32)) / 4,
    )
    colours = neighbours[compared].astype(np.float64)
    fitted = inverse @ (factors.T @ colours)
    residuals = colours - factors @ fitted
    variance = np.square(residuals).sum() / (len(inside) - 4) + 3
    between = max(0.0, np.square(fitted[3]).sum() - _SIGNIFICANT**2 * variance * inverse[3, 3]) / 4
    in_object = inside > 0
    ground_variance = np.square(residuals[~in_object]).sum(axis=1).mean() + 3
    object_spread = np.square(residuals[in_object] + fitted[3]).sum(axis=1).mean()
    standard_error = ground_variance * np.sqrt(8 / in_object.sum() + 8 / (~in_object).sum())
    beyond = max(0.0, object_spread - ground_variance - _SIGNIFICANT * standard_error) / 4
    return float(max(between / (between + variance), beyond / (beyond + ground_variance)))


def _neighbours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of each pixel's four neighbours; values [h, w, C] are mirrored at the border."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), "reflect")
    return np.asarray(padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:])


def mask_parts(mask: NDArray[np.bool_], connected: bool = True) -> list[Part]:
    """Rows, columns, and the mask within them: of each connected part (of 8 neighbours), or of all together."""
    return _parts(ndimage.label(mask, np.ones((3, 3)))[0] if connected else mask.astype(np.uint8))


def touching_parts(mask: NDArray[np.bool_], usual_area: float) -> list[Part]:
    """Divide a mask at its waists, if it is larger than 1.2 usual objects: a watershed of the distance to its border.

    The distance is smoothed by 5 % of the usual object's diameter. Each part has a maximum of the distance, which is
    higher than the waists around it by 1 % of the diameter. Many long, bent and hollow objects have several such maxima
    and are divided as well (docs/guide/large_images.md).
    """
    if mask.sum() <= _LARGE * usual_area:
        return mask_parts(mask, connected=False)
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    diameter = 2 * (usual_area / np.pi) ** 0.5
    inside = np.pad(mask, 1)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 0.05 * diameter)
    maxima = ndimage.label(inside & (h_maxima(distance, 0.01 * diameter) > 0), np.ones((3, 3)))[0]
    return _parts(watershed(-distance, maxima, mask=inside)[1:-1, 1:-1])


def _parts(parts: NDArray[np.integer]) -> list[Part]:
    windows = ndimage.find_objects(parts)
    return [(rows, columns, parts[rows, columns] == number) for number, (rows, columns) in enumerate(windows, start=1)]


def _split(found: FoundObjects, parts_of: Callable[[NDArray[np.bool_]], list[Part]]) -> FoundObjects:
    """Give every part but an object's largest one a label of its own."""
    labels = found.labels.astype(np.int32, copy=False)
    rows, slots, areas, boxes = (list[Any]() for _ in range(4))
    number = int(labels.max(initial=0))
    for row, (label, (x1, y1, x2, y2)) in enumerate(found._windows()):
        parts = parts_of(labels[y1:y2, x1:x2] == label)
        for rank, (down, right, mask) in enumerate(sorted(parts, key=lambda part: -part[2].sum())):
            part = labels[y1:y2, x1:x2][down, right]
            number += rank > 0
            part[mask] = number if rank else label
            rows.append(row)
            slots.append(number if rank else label)
            areas.append(int(mask.sum()))
            boxes.append((x1 + right.start, y1 + down.start, x1 + right.stop, y1 + down.stop))
    return replace(
        _rows(found, np.array(rows, np.int64)),
        labels=labels,
        slots=np.array(slots, np.int64),
        areas=np.array(areas, np.int64),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
    )


def _rows(found: FoundObjects, rows: NDArray[np.int64]) -> FoundObjects:
    """The objects of some rows, with the same label map."""
    return replace(found, **{name: array[rows] for name, array in found.columns().items()})


def coco_annotations(found: FoundObjects, image_id: int) -> list[dict[str, Any]]:
    """Return the objects of one image as COCO annotations, without the `id` that `coco_json` gives.

    `bbox` is the mask's. Besides COCO's fields an annotation has `score`, `slot`, `contrast` after `refine` and, if the
    model has them, `model_bbox`, `latent` and `location` (y and x in 0..1 of the image, from its top left).
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
        if found.contrasts is not None:
            annotation["contrast"] = round(float(found.contrasts[row]), 5)
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
    found = found_in_squares(decomposition)
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
        for found in found_in_squares(decomposition)
    ]


def found_in_squares(decomposition: Decomposition, min_score: float = 0.0) -> list[FoundObjects]:
    """The objects of all images, at the model's resolution."""
    decomposition = decomposition.map(lambda tensor: tensor.detach().cpu())
    side = int(decomposition.log_masks.shape[-1])
    geometry = ResizeGeometry(side, side, side, (0, 0, side, side), (0, 0, side, side))
    return [found_objects(decomposition, index, geometry, min_score) for index in range(len(decomposition.log_masks))]

"""Masks as arrays: checked, turned into label maps, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unscene.data.labelled_folder import renumbered
from unscene.errors import DataError, ShapeError
from unscene.metrics import default_metrics
from unscene.scene import Scene, Segmentation, boxes_of_labels

SLOTS_FIRST = "Masks of slots have the axes [B, K, H, W]: take np.moveaxis(masks, -1, 1) of [B, H, W, K]."


def evaluate_masks(
    true: Any, predicted: Any, *, classes: Any = None, scores: Any = None, background: int | None = None
) -> dict[str, float | int | None]:
    """Score masks that any program predicted by the metrics of `evaluate`; None is "not applicable".

    All are arrays or tensors. Label maps may number the objects of an image in any way, with gaps. Where a pixel has
    several masks, it belongs to the largest. The guide's page "Masks of other programs" has the conventions.

    Args:
        true: integer label maps [B, H, W]: 0 is the background, 1.. the objects, -1 a pixel that no score counts. Or
            one-hot masks [B, K, H, W] or [B, K, 1, H, W], the background's first; no score counts a pixel without any.
        predicted: integer label maps [B, H, W], 0 the background. Or masks [B, K, H, W] or [B, K, 1, H, W] in 0..1,
            soft or binary; a pixel in which all are 0 is background.
        classes: [B, M] the class of the true labels 1..M, 0 for none, for `mbo_class`.
        scores: [B, L] how sure the program is of the predicted labels 1..L, or of all K slots, for COCO's average
            precision; by default all are 1, and equal scores rank by the label.
        background: which slot of predicted masks is the background, from 0; by default each slot is an object.

    Raises:
        ShapeError: arrays of other axes, of several sizes, or not as many.
        DataError: values that are no labels, no shares in 0..1, or no scores; no image.
    """
    labels, found = label_maps(true, "true", lowest=-1), label_maps(predicted, "predicted", background)
    labels = labels - 1 if np.ndim(true) > 3 else labels  # the first of the masks is the background's
    if labels.shape != found.shape:
        raise ShapeError(
            f"true has the label maps {list(labels.shape)}, but predicted {list(found.shape)}. {SLOTS_FIRST}"
        )
    if not len(labels):
        raise DataError("there is no image to score.")
    of_true = None if classes is None else check_rows(classes, "classes", labels)
    of_found = [None] * len(found) if scores is None else check_rows(scores, "scores", found)
    metrics = default_metrics(of_label_maps=True)
    for image in range(len(labels)):
        scene = true_scene(labels[image], None if of_true is None else of_true[image])
        prediction = segmentation([found[image]], [of_found[image]])
        for metric in metrics.values():
            metric.update(scene, prediction)
    return {name: value for metric in metrics.values() for name, value in metric.compute().items()}


def label_maps(masks: Any, name: str, background: int | None = None, lowest: int = 0) -> NDArray[np.integer]:
    """Return masks as label maps [B, H, W] with 0 for the background.

    A pixel of masks belongs to the largest, and to the background if all are 0 there or that slot is the `background`.

    Args:
        masks: an array or tensor, integer label maps [B, H, W], or masks in 0..1 [B, K, H, W] or [B, K, 1, H, W].
        name: of the masks, for messages.
        background: index of the slot of the background, for masks of slots only; None for none.
        lowest: least label that label maps may hold.

    Raises:
        ShapeError: other axes.
        DataError: values that are no labels or no masks.
    """
    array = np.asarray(masks.detach().cpu() if isinstance(masks, Tensor) else masks)
    array = array[:, :, 0] if array.ndim == 5 and array.shape[2] == 1 else array
    if array.ndim not in (3, 4) or array.dtype.kind not in "biuf" or 0 in array.shape[1:]:
        raise ShapeError(
            f"{name} must be label maps [B, H, W], or masks [B, K, H, W] or [B, K, 1, H, W], but are "
            f"{array.dtype} {list(array.shape)}."
        )
    if array.ndim == 3:
        if array.dtype.kind == "f":
            raise DataError(
                f"{name} of the axes [B, H, W] must be whole numbers, a label for each pixel, but are {array.dtype}. "
                "Convert label maps to integers; masks have the axes [B, K, H, W]."
            )
        if background is not None:
            raise DataError(f"{name} are label maps, in which 0 is the background: state none.")
        if array.min(initial=0) < lowest:
            raise DataError(f"{name} hold the label {array.min()}. Expected 0 for the background, 1 .. for objects.")
        return array.astype(np.int64)
    least, greatest = float(array.min(initial=0)), float(array.max(initial=0))
    if not 0 <= least <= greatest <= 1 + 1e-4:  # not for NaN either
        raise DataError(
            f"{name} [B, K, H, W] must be shares in 0..1, but hold {least:.3g} to {greatest:.3g}. Take the softmax of "
            "logits, the exp of logs; divide bytes by 255; replace NaN. Label maps have the axes [B, H, W]."
        )
    slots = array.shape[1]
    if background is not None and not -slots <= background < slots:
        raise DataError(f"{name} have {slots} slots, so the background cannot be slot {background}.")
    labels = np.where(array.max(axis=1) > 0, array.argmax(axis=1) + 1, 0)
    return labels if background is None else np.where(labels == background % slots + 1, 0, labels)


def segmentation(maps: Sequence[NDArray[np.integer]], scores: Sequence[NDArray[np.floating] | None]) -> Segmentation:
    """Return label maps [H, W] of one size, whose labels may have gaps, with the scores [L] of labels 1..L.

    DataError: scores are not finite.
    """
    numbered = [renumbered(labels) for labels in maps]
    most = max((len(objects) for _, objects in numbered), default=0)
    padded = np.zeros((len(maps), most))
    for row, (_, objects), values in zip(padded, numbered, scores, strict=True):
        row[: len(objects)] = 1 if values is None else values[objects - 1]
    if not np.isfinite(padded).all():
        raise DataError("scores must be finite numbers, the higher the surer, but hold NaN or infinity.")
    return Segmentation(torch.from_numpy(np.stack([labels for labels, _ in numbered])).long(), torch.from_numpy(padded))


def check_rows(values: Any, name: str, maps: NDArray[np.integer]) -> NDArray[Any]:
    """Return values of each label [B, L] as an array; ShapeError unless there is one for each label of the maps."""
    array, most = np.asarray(values), int(maps.max())
    if array.ndim != 2 or array.dtype.kind not in "biuf" or len(array) != len(maps) or array.shape[1] < most:
        raise ShapeError(
            f"{name} must be numbers [{len(maps)}, {most}], of labels 1 to {most} in each image, but are {array.dtype} "
            f"{list(array.shape)}."
        )
    return array


def true_scene(labels: NDArray[np.integer], classes: NDArray[np.integer] | None = None) -> Scene:
    """Return a label map [H, W] as the truth of a scene without an image; `classes` [M] are those of labels 1..M."""
    numbered, objects = renumbered(labels)
    boxes = boxes_of_labels(numbered[None].clip(0), len(objects))
    return Scene(
        torch.zeros(1, 1, 1, 1).expand(1, 3, *labels.shape),
        torch.from_numpy(numbered)[None].long(),
        torch.from_numpy(boxes),
        None if classes is None else torch.from_numpy(classes[objects - 1].astype(np.int64))[None],
    )

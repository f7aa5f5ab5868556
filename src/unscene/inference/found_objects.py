"""A decomposition brought back to the image it is of: labels, boxes and scores at the image's own resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unscene.data.image_resize import Fit
from unscene.data.label_boxes import boxes_of_labels
from unscene.scene import Decomposition


@dataclass(frozen=True)
class FoundObjects:
    """The objects of one image, N in all: the slots that won a pixel.

    Attributes:
        labels: [H, W] uint8, 0 is the background, `n` the slot `n` of the foreground, counted from 1.
        slots: [N] their labels.
        areas: [N] their pixels.
        boxes: [N, 4] float32 `x1 y1 x2 y2` in the image's pixels, end exclusive.
        scores: [N] float32 in [0, 1].
        latents: [N, D] float32, or None for a model without.
        locations: [N, 2] float32, y and x in 0..1 of the image, by the model's own account; None for a model without.
    """

    labels: NDArray[np.uint8]
    slots: NDArray[np.int64]
    areas: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    latents: NDArray[np.float32] | None
    locations: NDArray[np.float32] | None


def found_objects(decomposition: Decomposition, index: int, fit: Fit, min_area: int = 0) -> FoundObjects:
    """Find the objects of one image of a decomposition.

    The masks are enlarged, then compete for each pixel, so borders are smooth. Where the model has no box for a slot,
    the box is the one around its pixels and its score their mean share. Outside what the model saw of the image (a
    crop) all is background.

    Args:
        decomposition: of a batch.
        index: of the image in it.
        fit: how the image was brought to the model's square.
        min_area: slots with fewer pixels are left out; a slot with none always is.
    """
    labels, shares = _labels_and_shares(decomposition, index, fit)
    foreground = np.array(decomposition.foreground, np.int64)
    pixels = np.bincount(labels.ravel(), minlength=len(foreground) + 1)
    kept = pixels >= max(1, min_area)
    kept[0] = True  # the background stays what it is
    labels[~kept[labels]] = 0
    slots = np.flatnonzero(kept[1:]) + 1
    boxes, scores = _boxes_and_scores(decomposition, index, fit, labels, shares, slots)
    latents, locations = decomposition.latents, decomposition.locations
    return FoundObjects(
        labels=labels,
        slots=slots,
        areas=pixels[slots].astype(np.int64),
        boxes=boxes,
        scores=scores,
        latents=None if latents is None else latents[index].float().numpy()[foreground[slots - 1]],
        locations=None if locations is None else fit.restore_locations(locations[index].float().numpy())[slots - 1],
    )


def _labels_and_shares(
    decomposition: Decomposition, index: int, fit: Fit
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[H, W] the label that wins each pixel, and its share; slot by slot, so memory does not grow with K."""
    labels = np.zeros((fit.height, fit.width), np.uint8)
    shares = np.zeros((fit.height, fit.width), np.float32)
    foreground = decomposition.foreground
    for slot in range(decomposition.num_slots):
        label = foreground.index(slot) + 1 if slot in foreground else 0
        mask = decomposition.log_masks[index, slot].float().exp().numpy()  # [1, size, size]
        restored = fit.restore(mask, fill=float(label == 0))[0]
        wins = restored > shares  # of equal shares the first slot wins, as in argmax
        labels[wins] = label
        np.maximum(shares, restored, out=shares)
    return labels, shares


def _boxes_and_scores(
    decomposition: Decomposition,
    index: int,
    fit: Fit,
    labels: NDArray[np.uint8],
    shares: NDArray[np.float32],
    slots: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[N, 4] and [N]: the model's where it has a valid box, else of the pixels."""
    number = len(decomposition.foreground)
    boxes = boxes_of_labels(labels[None], number)[0]
    pixels = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    total = np.bincount(labels.ravel(), weights=shares.ravel(), minlength=number + 1)[1:]
    scores = (total / pixels.clip(1)).clip(0, 1).astype(np.float32)
    found, certain, valid = decomposition.boxes, decomposition.box_scores, decomposition.box_valid
    if found is not None and certain is not None and valid is not None:
        restored = fit.restore_boxes(found[index].float().numpy())
        used = valid[index].bool().numpy() & restored.any(axis=1)
        boxes[used] = restored[used]
        scores[used] = certain[index].float().numpy()[used]
    return boxes[slots - 1], scores[slots - 1]

"""A decomposition brought back to its image: labels, boxes and scores at the image's own resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unscene.data.image_resize import ResizeGeometry
from unscene.data.samples import boxes_of_labels
from unscene.scene import Decomposition


@dataclass(frozen=True)
class FoundObjects:
    """The objects of one image, N in all: the slots that won a pixel.

    Attributes:
        labels: [H, W] uint8, 0 is the background, `n` the slot `n` of the foreground, counted from 1.
        slots: [N] labels of the objects.
        areas: [N] pixels of the objects.
        boxes: [N, 4] float32 `x1 y1 x2 y2` in the image's pixels, end exclusive.
        scores: [N] float32 in [0, 1].
        latents: [N, D] float32, or None for a model without.
        locations: [N, 2] float32, y and x in 0..1 of the image, as the model states them; None for a model without.
    """

    labels: NDArray[np.uint8]
    slots: NDArray[np.int64]
    areas: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    latents: NDArray[np.float32] | None
    locations: NDArray[np.float32] | None


def found_objects(decomposition: Decomposition, index: int, geometry: ResizeGeometry) -> FoundObjects:
    """Find the objects of one image of a decomposition.

    The masks are enlarged first, then compete for each pixel, so borders are smooth. A slot without a box of the model
    gets the box around its pixels, and their mean share as its score. Outside of a crop, which the model did not see,
    all is background.

    Args:
        decomposition: of a batch.
        index: of the image in it.
        geometry: how the image was brought to the model's square.
    """
    labels, shares = _labels_and_shares(decomposition, index, geometry)
    foreground = np.array(decomposition.foreground, np.int64)
    pixels = np.bincount(labels.ravel(), minlength=len(foreground) + 1)
    slots = np.flatnonzero(pixels[1:]) + 1
    boxes, scores = _boxes_and_scores(decomposition, index, geometry, labels, shares, slots)
    latents = None if decomposition.latents is None else decomposition.latents[index].float().numpy()
    locations = None if decomposition.locations is None else decomposition.locations[index].float().numpy()
    return FoundObjects(
        labels=labels,
        slots=slots,
        areas=pixels[slots].astype(np.int64),
        boxes=boxes,
        scores=scores,
        latents=None if latents is None else latents[foreground[slots - 1]],
        locations=None if locations is None else geometry.restore_locations(locations)[slots - 1],
    )


def _labels_and_shares(
    decomposition: Decomposition, index: int, geometry: ResizeGeometry
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[H, W] the label that wins each pixel, and its share; slot by slot, so memory does not grow with K."""
    labels = np.zeros((geometry.height, geometry.width), np.uint8)
    shares = np.zeros((geometry.height, geometry.width), np.float32)
    foreground = decomposition.foreground
    for slot in range(decomposition.num_slots):
        label = foreground.index(slot) + 1 if slot in foreground else 0
        mask = decomposition.log_masks[index, slot].float().exp().numpy()  # [1, size, size]
        restored = geometry.restore(mask, fill=float(label == 0))[0]
        wins = restored > shares  # of equal shares the first slot wins, as in argmax
        labels[wins] = label
        np.maximum(shares, restored, out=shares)
    return labels, shares


def _boxes_and_scores(
    decomposition: Decomposition,
    index: int,
    geometry: ResizeGeometry,
    labels: NDArray[np.uint8],
    shares: NDArray[np.float32],
    slots: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[N, 4] and [N]: the model's valid boxes and their scores, else those of the pixels."""
    number = len(decomposition.foreground)
    boxes = boxes_of_labels(labels[None], number)[0]
    pixels = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    total = np.bincount(labels.ravel(), weights=shares.ravel(), minlength=number + 1)[1:]
    scores = (total / pixels.clip(1)).clip(0, 1).astype(np.float32)
    given, given_scores, valid = decomposition.boxes, decomposition.box_scores, decomposition.box_valid
    if given is not None and given_scores is not None and valid is not None:
        restored = geometry.restore_boxes(given[index].float().numpy())
        used = valid[index].bool().numpy() & restored.any(axis=1)
        boxes[used] = restored[used]
        scores[used] = given_scores[index].float().numpy()[used]
    return boxes[slots - 1], scores[slots - 1]

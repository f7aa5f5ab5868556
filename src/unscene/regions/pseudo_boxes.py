"""Pseudo boxes: what foreground masks say about where the objects are (R-MONet, Section 3.4).

Every mask is thresholded at its Multi-Otsu thresholds; the connected parts of what lies above each become boxes, which
supervise the region proposal network. A mask that covers two objects so proposes both, and no annotation is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from unscene.errors import check_shape
from unscene.regions.multi_otsu import Variant, multi_otsu
from unscene.regions.nms import batched_nms


@dataclass(frozen=True)
class PseudoBoxSettings:
    """How masks become boxes; the defaults are R-MONet's for Multi-dSprites (CLEVR: `min_side=5`).

    Attributes:
        floor: mask values under this count as 0.
        classes: classes of Multi-Otsu; there are `classes - 1` thresholds a mask.
        bins: bins of Multi-Otsu's histogram.
        variant: whose Multi-Otsu, see `multi_otsu`; the paper used scikit-image 0.16.2.
        min_side: least width and height of a box, in pixels.
        max_ratio: a box's longer side is at most this many times the shorter one.
        min_score: boxes with a lower score are dropped. 0 is the paper's; above, the faint rests that an unused slot
            keeps (the thresholds are relative to a mask's own range) are no objects to learn from.
        nms_threshold: of two boxes of an image that overlap by more than this IoU, the one with the lower score goes.
        max_boxes: N, the boxes returned for an image; of more, the best scores stay.
        max_candidates: boxes of an image that enter the suppression; of more (noise), the best scores enter.
    """

    floor: float = 0.001
    classes: int = 3
    bins: int = 5
    variant: Variant = "skimage016"
    min_side: int = 3
    max_ratio: float = 3.0
    min_score: float = 0.0
    nms_threshold: float = 0.7
    max_boxes: int = 32
    max_candidates: int = 256


@torch.no_grad()
def pseudo_boxes(masks: Tensor, settings: PseudoBoxSettings | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes of the connected parts of all foreground masks, the best first. No gradient flows through them.

    A part is 8-connected in mask > threshold, for each threshold of each mask. Its score is the mean of the mask inside
    its box, so a box that is filled by one sure object scores near 1. A constant mask, such as an empty slot, has none.

    Args:
        masks: [B, K-1, H, W] foreground masks in [0, 1].
        settings: see `PseudoBoxSettings`; its defaults when None.

    Returns:
        boxes: [B, N, 4] float32 pixels, end exclusive, sorted by falling score; unused rows are zero. N is `max_boxes`.
        scores: [B, N] float32 in [0, 1]; 0 in unused rows.
        valid: [B, N] bool; False in unused rows, which come last.

    Raises:
        ShapeError: `masks` has other axes.
        RecipeError: the settings of Multi-Otsu are impossible.
    """
    settings = settings or PseudoBoxSettings()
    size = check_shape(masks, "B S H W", "masks")
    masks = masks.float()
    masks = masks.masked_fill(masks < settings.floor, 0).flatten(0, 1)  # [G, H, W], G = B * (K-1)
    thresholds = multi_otsu(masks.flatten(1), settings.classes, settings.bins, settings.variant)  # [G, T]
    above = masks.unsqueeze(1) > thresholds.float()[:, :, None, None]  # [G, T, H, W]
    planes, found = connected_boxes(above.flatten(0, 1).cpu().numpy())
    fits = _has_fitting_sides(found, settings)
    boxes = torch.from_numpy(found[fits]).to(masks.device)  # [n, 4]
    mask_index = torch.from_numpy(planes[fits]).to(masks.device) // thresholds.shape[1]  # [n]
    scores = _mean_inside(masks, boxes, mask_index)
    if settings.min_score > 0:
        sure = scores >= settings.min_score
        boxes, scores, mask_index = boxes[sure], scores[sure], mask_index[sure]
    padded = _padded_by_image(boxes.float(), scores, mask_index // size["S"], size["B"], settings.max_candidates)
    keep = batched_nms(*padded, settings.nms_threshold)
    return _best_kept(padded[0], padded[1], keep, settings.max_boxes)


def connected_boxes(planes: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bounding boxes of the 8-connected parts of many binary images.

    Works on runs (unbroken stretches of a row) instead of pixels: runs of neighbouring rows that touch are the edges of
    one graph over all images, whose components are the parts.

    Args:
        planes: [P, H, W] bool.

    Returns:
        plane: [n] int64, the image of each part, rising.
        boxes: [n, 4] int64 pixels, end exclusive.

    Raises:
        ShapeError: `planes` has other axes.
    """
    size = check_shape(planes, "P H W", "planes")
    height, width = size["H"] + 1, size["W"] + 1  # an empty row above and an empty column before each image
    padded = np.zeros(size["P"] * height * width + 1, dtype=np.bool_)
    padded[:-1].reshape(size["P"], height, width)[:, 1:, 1:] = planes
    changes = np.flatnonzero(padded[1:] != padded[:-1]) + 1
    starts, ends = changes[::2], changes[1::2]
    if len(starts) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.int64)
    part = _touching_runs(starts, ends, width)
    by_part = np.argsort(part, kind="stable")
    starts, ends = starts[by_part], ends[by_part]
    first = np.flatnonzero(
        np.diff(part[by_part], prepend=-1)
    )  # each part's first run is its topmost, the last its lowest
    last = np.append(first[1:], len(starts)) - 1
    row, column = np.divmod(starts, width)
    x1 = np.minimum.reduceat(column, first) - 1
    x2 = np.maximum.reduceat(column + ends - starts, first) - 1
    plane, y1 = np.divmod(row[first], height)
    y2 = row[last] % height
    return plane, np.stack([x1, y1 - 1, x2, y2], axis=1)


def _touching_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], width: int) -> NDArray[np.int32]:
    """[R] the part to which each run [start, end) belongs; the positions are those of rows of `width`, end to end."""
    first = np.searchsorted(ends, starts + width)  # the first run of the next row that ends at or after our start ...
    past = np.searchsorted(starts, ends + width, side="right")  # ... and all that start at or before our end touch us
    degree = past - first
    before = np.concatenate([[0], np.cumsum(degree)])
    below = np.arange(before[-1]) + np.repeat(first - before[:-1], degree)
    graph = csr_array((np.ones(len(below), dtype=np.int8), below, before), shape=(len(starts), len(starts)))
    return np.asarray(connected_components(graph, directed=False)[1])


def _has_fitting_sides(boxes: NDArray[np.int64], settings: PseudoBoxSettings) -> NDArray[np.bool_]:
    """[n] whether neither side of the box is too short, nor one too long for the other."""
    sides = boxes[:, 2:] - boxes[:, :2]
    shorter, longer = sides.min(axis=1), sides.max(axis=1)
    return np.asarray((shorter >= settings.min_side) & (longer <= settings.max_ratio * shorter))


def _mean_inside(masks: Tensor, boxes: Tensor, mask_index: Tensor) -> Tensor:
    """[n] mean of each box's own mask [G, H, W] inside the box, from a summed-area table."""
    # float64: a difference of large sums in float32 would lose the small ones
    table = F.pad(masks.cumsum(dim=1, dtype=torch.float64).cumsum(dim=2), (1, 0, 1, 0))
    x1, y1, x2, y2 = boxes.unbind(1)
    total = (
        table[mask_index, y2, x2] - table[mask_index, y1, x2] - table[mask_index, y2, x1] + table[mask_index, y1, x1]
    )
    return (total / ((x2 - x1) * (y2 - y1))).clamp(0, 1).float()


def _padded_by_image(
    boxes: Tensor, scores: Tensor, image: Tensor, num_images: int, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the flat boxes [n, 4] and scores [n] out as [B, M, ...] with valid [B, M], the best `limit` of each image."""
    order = scores.argsort(descending=True, stable=True)
    order = order[image[order].argsort(stable=True)]
    boxes, scores, image = boxes[order], scores[order], image[order]
    counts = image.bincount(minlength=num_images)
    rank = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    stays = rank < limit
    boxes, scores, image, rank = boxes[stays], scores[stays], image[stays], rank[stays]
    most = min(int(counts.max()), limit)
    padded_boxes = boxes.new_zeros(num_images, most, 4)
    padded_scores = scores.new_zeros(num_images, most)
    padded_boxes[image, rank] = boxes
    padded_scores[image, rank] = scores
    valid = torch.arange(most, device=image.device) < counts.unsqueeze(1)
    return padded_boxes, padded_scores, valid


def _best_kept(boxes: Tensor, scores: Tensor, keep: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """The kept ones of boxes [B, M, 4], sorted already, moved to the front and cut or padded to `limit` rows."""
    room = F.pad(keep, (0, limit))  # so that there are rows enough, whatever M is
    order = room.byte().argsort(dim=1, descending=True, stable=True)[:, :limit]
    valid = room.gather(1, order)
    boxes = F.pad(boxes, (0, 0, 0, limit)).gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    scores = F.pad(scores, (0, limit)).gather(1, order)
    return boxes * valid.unsqueeze(-1), scores * valid, valid

"""Pseudo boxes: what foreground masks say about where the objects are (R-MONet, Section 3.4).

Every mask is thresholded at its Multi-Otsu thresholds; the connected parts of what lies above each become boxes, which
supervise the region proposal network. A mask that covers two objects so proposes both, and no annotation is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unscene.errors import check_shape
from unscene.models.rmonet.multi_otsu import Variant, multi_otsu, thresholds_of_histograms
from unscene.ops.components_numpy import connected_boxes
from unscene.ops.components_torch import component_boxes
from unscene.ops.nms import batched_nms

EXACT_FROM = 2**-10  # float32 values from here up are multiples of 2^-33: float64 sums of 2^20 of them are exact
PIXELS_AT_ONCE = 2**19  # of the masks on a CPU: what a few images need stays in its cache
FIRST_KEPT_AMONG = 64  # candidates of an image that the CPU looks at first


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
def pseudo_boxes(
    masks: Tensor, settings: PseudoBoxSettings | None = None, host_reads: bool | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes of the connected parts of all foreground masks, the best first. No gradient flows through them.

    A part is 8-connected in mask > threshold, for each threshold of each mask. Its score is the mean of the mask inside
    its box, so a box that is filled by one sure object scores near 1. A constant mask, such as an empty slot, has none.

    There are three ways, with the same bits for images of up to 2^20 pixels. On a CPU the work is as much as the masks
    have runs (`connected_runs`), compiled where numba is installed (`compiled_parts`). That number would make the host
    wait for a GPU; there no value is read and no shape depends on one (`connected_blocks`): some 600 launches, and
    150 MB for 64 images of five masks of 64 x 64 pixels.

    Args:
        masks: [B, K-1, H, W] foreground masks in [0, 1].
        settings: see `PseudoBoxSettings`; its defaults when None.
        host_reads: whether the host may read values on the way; None: on a CPU only.

    Returns:
        boxes: [B, N, 4] float32 pixels, end exclusive, sorted by falling score; unused rows are zero. N is `max_boxes`.
            Of equal scores that of the earlier slot comes first, then the lower threshold, then the part whose first
            pixel is read first.
        scores: [B, N] float32 in [0, 1]; 0 in unused rows.
        valid: [B, N] bool; False in unused rows, which come last.

    Raises:
        ShapeError: `masks` has other axes.
        RecipeError: the settings of Multi-Otsu are impossible.
    """
    settings = settings or PseudoBoxSettings()
    check_shape(masks, "B S H W", "masks")
    if host_reads is None:
        host_reads = masks.device.type == "cpu"
    candidates = _candidates_by_runs if host_reads or masks.numel() == 0 else _candidates_by_blocks
    boxes, scores, valid = candidates(masks, settings)
    if host_reads:
        keep = _first_kept(boxes, scores, valid, settings)
    else:
        keep = batched_nms(boxes, scores, valid, settings.nms_threshold, host_reads=False)
    return _best_kept(boxes, scores, keep, settings.max_boxes)


def _planes_above(masks: Tensor, settings: PseudoBoxSettings) -> tuple[Tensor, Tensor]:
    """Cut masks [B, S, H, W] up by their thresholds.

    Returns:
        masks: [G, H, W] float32, G = B * S, 0 below the floor.
        planes: [G, T, H, W] bool, what lies above each of the T = classes - 1 thresholds.
    """
    masks = masks.float().flatten(0, 1)
    below_floor = float(np.nextafter(np.float32(settings.floor), np.float32(-np.inf)))
    masks = F.threshold(masks, below_floor, 0)  # one pass where masked_fill takes three
    thresholds = multi_otsu(masks.flatten(1), settings.classes, settings.bins, settings.variant)  # [G, T]
    return masks, masks.unsqueeze(1) > thresholds.float()[:, :, None, None]


def exact_addends(masks: Tensor, settings: PseudoBoxSettings) -> Tensor:
    """Return masks [G, H, W] as numbers whose float64 sums are exact: every order of adding gives the same bits."""
    if settings.floor >= EXACT_FROM:
        return masks
    return (masks.double() * 2**33).round() / 2**33


def _candidates_by_runs(masks: Tensor, settings: PseudoBoxSettings) -> tuple[Tensor, Tensor, Tensor]:
    """The candidates of masks [B, S, H, W]: boxes [B, M, 4], scores [B, M] and valid [B, M], the best first.

    M is what the richest image needs.
    """
    compiler = compiled_parts() if settings.floor >= 0 else None
    if compiler:
        at_once, parts = 0, [_compiled_parts(masks.cpu(), settings, compiler)]
    else:
        at_once = max(1, PIXELS_AT_ONCE // max(masks[0].numel() if len(masks) else 0, 1))
        parts = [_parts_by_runs(some, settings) for some in masks.cpu().split(at_once)]
    boxes, scores = (torch.cat(each) for each in list(zip(*parts, strict=True))[:2])
    image = torch.cat([each + start * at_once for start, (_, _, each) in enumerate(parts)])
    padded = _padded_by_image(boxes, scores, image, len(masks), settings.max_candidates)
    return padded[0].to(masks.device), padded[1].to(masks.device), padded[2].to(masks.device)


def _parts_by_runs(masks: Tensor, settings: PseudoBoxSettings) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of masks [b, S, H, W] that may be candidates: boxes [n, 4], scores [n] and image [n], which rises."""
    slots = masks.shape[1]
    masks, above = _planes_above(masks, settings)
    planes, found = connected_boxes(above.flatten(0, 1).numpy())
    fits = _has_fitting_sides(found, settings)
    boxes, mask_index = found[fits], planes[fits] // above.shape[1]
    scores = torch.from_numpy(_row_by_row_means(exact_addends(masks, settings), boxes, mask_index))
    sure = (scores >= settings.min_score).nonzero().squeeze(1)
    image = torch.from_numpy(mask_index) // max(slots, 1)
    chosen, scores, image = _rows(sure, torch.from_numpy(boxes).float(), scores, image)
    return chosen, scores, image


@cache
def compiled_parts() -> ModuleType | None:
    """The compiled way to find parts, if numba is installed and works."""
    try:
        from unscene.ops import components_numba as compiled
    except ImportError:
        return None
    return compiled


def _compiled_parts(masks: Tensor, settings: PseudoBoxSettings, compiled: ModuleType) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `_parts_by_runs`."""
    values = masks.float().flatten(0, 1).contiguous().numpy()  # [G, H, W]
    *counted, row_greatest = compiled.histograms(values, settings.floor, settings.bins)
    counts, least, greatest = (torch.from_numpy(each) for each in counted)
    thresholds = thresholds_of_histograms(counts, least, greatest, settings.classes, settings.variant).float().numpy()
    sides = (float(settings.min_side), float(settings.max_ratio))
    rounding = settings.floor < EXACT_FROM
    mask_index, boxes, means = compiled.parts_above(values, thresholds, row_greatest, settings.floor, sides, rounding)
    scores = torch.from_numpy(means)
    sure = (scores >= settings.min_score).nonzero().squeeze(1)
    image = torch.from_numpy(mask_index) // max(masks.shape[1], 1)
    chosen, scores, image = _rows(sure, torch.from_numpy(boxes).float(), scores, image)
    return chosen, scores, image


def _candidates_by_blocks(masks: Tensor, settings: PseudoBoxSettings) -> tuple[Tensor, Tensor, Tensor]:
    """The same, where no value may be read: M is `max_candidates`, or as many as the images have room for."""
    batch, slots, height, width = masks.shape
    masks, above = _planes_above(masks, settings)
    parts = component_boxes(above.flatten(0, 1))
    sides = (parts.boxes[..., 2:] - parts.boxes[..., :2]).double()  # as NumPy compares whole numbers with others
    shorter, longer = sides.amin(dim=-1), sides.amax(dim=-1)
    fits = parts.found & (shorter >= settings.min_side) & (longer <= settings.max_ratio * shorter)
    scores = _means_inside(exact_addends(masks, settings), parts.boxes.unflatten(0, above.shape[:2])).view_as(fits)
    fits &= scores >= settings.min_score
    # the order of the other way, as one number: the score's bits, which rise with it, then the part's place
    plane = torch.arange(len(fits), device=masks.device).unsqueeze(1) % (slots * above.shape[1])
    place = plane * (height * width) + parts.first
    rank = (scores.view(torch.int32).long() << 32) - place
    rank = rank.masked_fill(~fits, torch.iinfo(torch.int64).min).view(batch, -1)
    rank, order = rank.topk(min(settings.max_candidates, rank.shape[1]), dim=1)
    boxes = parts.boxes.view(batch, -1, 4).gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    valid = rank > torch.iinfo(torch.int64).min
    return boxes.float() * valid.unsqueeze(-1), scores.view(batch, -1).gather(1, order) * valid, valid


def _has_fitting_sides(boxes: NDArray[np.int64], settings: PseudoBoxSettings) -> NDArray[np.bool_]:
    """[n] whether neither side of the box is too short, nor one too long for the other."""
    sides = boxes[:, 2:] - boxes[:, :2]
    shorter, longer = sides.min(axis=1), sides.max(axis=1)
    return np.asarray((shorter >= settings.min_side) & (longer <= settings.max_ratio * shorter))


def _row_by_row_means(masks: Tensor, boxes: NDArray[np.int64], mask_index: NDArray[np.int64]) -> NDArray[np.float32]:
    """[n] mean of each box's own mask [G, H, W] inside the box, from running sums that one pass gives.

    A part has a run in every row of its box, so there are no more rows to add up than there are runs.
    """
    if len(boxes) == 0:
        return np.zeros(0, dtype=np.float32)
    height, width = masks.shape[1:]
    until = masks.flatten(1).cumsum(dim=1, dtype=torch.float64).flatten().numpy()  # this pixel included
    x1, y1, x2, y2 = boxes.T
    rows = y2 - y1
    first = np.cumsum(rows) - rows  # of each box, among the rows of all
    start = np.repeat(mask_index * (height * width) + y1 * width + x1 - first * width, rows)
    start += np.arange(len(start)) * width
    sums = until[start + np.repeat(x2 - x1 - 1, rows)] - until[start] + masks.flatten().numpy()[start]
    means: NDArray[np.float64] = np.add.reduceat(sums, first) / ((x2 - x1) * rows)
    return means.clip(0, 1).astype(np.float32)


def _means_inside(masks: Tensor, boxes: Tensor) -> Tensor:
    """[G, T, n] mean of each mask [G, H, W] inside its boxes [G, T, n, 4], from a summed-area table; 0 if empty."""
    # float64: a difference of large sums in float32 would lose the small ones
    table = F.pad(masks.cumsum(dim=1, dtype=torch.float64).cumsum(dim=2), (1, 0, 1, 0))
    stride = table.shape[2]
    table = table.flatten(1).unsqueeze(1).expand(-1, boxes.shape[1], -1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.cat([y2 * stride + x2, y1 * stride + x2, y2 * stride + x1, y1 * stride + x1], dim=2)
    below_right, above_right, below_left, above_left = table.gather(2, corners).chunk(4, dim=2)
    total = below_right - above_right - below_left + above_left
    return (total / ((x2 - x1) * (y2 - y1)).clamp_(min=1)).clamp_(0, 1).float()


def _padded_by_image(
    boxes: Tensor, scores: Tensor, image: Tensor, num_images: int, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the flat boxes [n, 4] and scores [n] out as [B, M, ...] with valid [B, M], the best `limit` of each image."""
    order = scores.argsort(descending=True, stable=True)
    order = order[image[order].argsort(stable=True)]
    boxes, scores, image = _rows(order, boxes, scores, image)
    counts = image.bincount(minlength=num_images)
    rank = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    stays = rank < limit
    boxes, scores, image, rank = _rows(stays.nonzero().squeeze(1), boxes, scores, image, rank)
    most = min(int(counts.max()), limit) if num_images else 0
    place = image * most + rank
    padded_boxes = boxes.new_zeros(num_images * most, 4).index_copy_(0, place, boxes).view(num_images, most, 4)
    padded_scores = scores.new_zeros(num_images * most).index_copy_(0, place, scores).view(num_images, most)
    valid = torch.arange(most, device=image.device) < counts.unsqueeze(1)
    return padded_boxes, padded_scores, valid


def _rows(index: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows `index` of each tensor. `tensor[index]` would wake all threads of a CPU, which then wait for more
    while the compiled loops want their cores (`cpu_threads`)."""
    return tuple(each.index_select(0, index) for each in tensors)


def _first_kept(boxes: Tensor, scores: Tensor, valid: Tensor, settings: PseudoBoxSettings) -> Tensor:
    """[B, M] which candidates the suppression keeps, as far down the list as any image needs for its `max_boxes`."""
    most = boxes.shape[1]
    count = FIRST_KEPT_AMONG
    while True:
        some = slice(min(count, most))
        keep = batched_nms(boxes[:, some], scores[:, some], valid[:, some], settings.nms_threshold, host_reads=True)
        if count >= most or bool(((keep.sum(dim=1) >= settings.max_boxes) | ~valid[:, count]).all()):
            return F.pad(keep, (0, most - keep.shape[1]))
        count *= 2


def _best_kept(boxes: Tensor, scores: Tensor, keep: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """The kept ones of boxes [B, M, 4], sorted already, moved to the front and cut or padded to `limit` rows."""
    room = F.pad(keep, (0, limit))  # so that there are rows enough, whatever M is
    order = room.byte().argsort(dim=1, descending=True, stable=True)[:, :limit]
    valid = room.gather(1, order)
    boxes = F.pad(boxes, (0, 0, 0, limit)).gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    scores = F.pad(scores, (0, limit)).gather(1, order)
    return boxes * valid.unsqueeze(-1), scores * valid, valid

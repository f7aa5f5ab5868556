"""Boxes: overlaps, clipping, Faster R-CNN's regression targets, and greedy non-maximum suppression.

A box is `x1 y1 x2 y2` in pixels, end exclusive. Every function but `batched_nms` takes any leading axes and keeps the
dtype. Axes that do not fit are a ShapeError.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from unscene.errors import ShapeError, check_shape
from unscene.ops.dispatch import host_may_read, use_plain

LARGEST_LOG_SCALE = math.log(1000 / 16)  # an anchor grows at most 62.5 fold: exp of an untrained output stays finite


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the deltas [..., 4] that turn each anchor into its box (Faster R-CNN, Eq. 2).

    t_x = (x - x_a) / w_a,  t_y = (y - y_a) / h_a,  t_w = log(w / w_a),  t_h = log(h / h_a),  with x y the centre.

    The leading axes broadcast. Sides are positive; a box's side of zero has no logarithm and gives -inf.
    """
    _check_boxes(boxes, "boxes")
    _check_boxes(anchors, "anchors")
    centre, size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    return torch.cat([(centre - anchor_centre) / anchor_size, (size / anchor_size).log()], dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor, clip: float = LARGEST_LOG_SCALE) -> Tensor:
    """Return the boxes [..., 4] of the deltas (t_x, t_y, t_w, t_h), not clipped to the image.

    The inverse of `encode_boxes`; t_w and t_h are held at or below `clip`, with a gradient of zero beyond it.
    """
    _check_boxes(deltas, "deltas")
    _check_boxes(anchors, "anchors")
    anchor_centre, anchor_size = _centre_and_size(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    half = 0.5 * anchor_size * deltas[..., 2:].clamp(max=clip).exp()
    return torch.cat([centre - half, centre + half], dim=-1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union [..., N, M], in [0, 1], of boxes [..., N, 4] and boxes [..., M, 4].

    The leading axes broadcast. A box without area (also one whose end lies before its start) overlaps nothing: 0.
    """
    _check_boxes(first, "first", axes=2)
    _check_boxes(second, "second", axes=2)
    # coordinates first and contiguous, then in place: an order of magnitude quicker than strides of four
    left, top, right, bottom = first.movedim(-1, 0).contiguous().unsqueeze(-1).unbind(0)  # [..., N, 1]
    others = second.movedim(-1, 0).contiguous().unsqueeze(-2).unbind(0)  # [..., 1, M]
    width = torch.minimum(right, others[2]).sub_(torch.maximum(left, others[0])).clamp_(min=0)
    height = torch.minimum(bottom, others[3]).sub_(torch.maximum(top, others[1])).clamp_(min=0)
    intersection = width.mul_(height)
    areas = (right - left).clamp_(min=0) * (bottom - top).clamp_(min=0)
    other_areas = (others[2] - others[0]).clamp_(min=0) * (others[3] - others[1]).clamp_(min=0)
    union = (areas + other_areas).sub_(intersection).clamp_(min=torch.finfo(areas.dtype).tiny)  # 0 / tiny, not 0 / 0
    return intersection / union


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the part of each box [..., 4] inside an image of `height` x `width`; one wholly outside has no area."""
    _check_boxes(boxes, "boxes")
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)


@torch.no_grad()
def batched_nms(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Return which boxes to keep, [G, N] bool: no better kept box of their group overlaps them above the threshold.

    `torchvision.ops.nms` of each group of boxes [G, N, 4] by their scores [G, N]; equal scores keep their order. The
    fast body takes all groups at once, and the host does not wait for a GPU. A box that is not `valid` [G, N]
    suppresses nothing, whatever its numbers are. An overlap of exactly the threshold, in [0, 1], is allowed.
    """
    size = check_shape(boxes, "G N 4", "boxes")
    check_shape(scores, f"{size['G']} {size['N']}", "scores")
    check_shape(valid, f"{size['G']} {size['N']}", "valid")
    if boxes.numel() == 0:
        return valid.clone()
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    if use_plain():
        keep = torch.zeros_like(valid)
        for group, rows in enumerate(valid):
            index = rows.nonzero().squeeze(1)
            keep[group, index[nms(boxes[group, index], scores[group, index].to(boxes), iou_threshold)]] = True
        return keep
    order = scores.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
    if host_may_read(valid):  # elsewhere the host would wait for the number
        order = order[:, : int(valid.sum(dim=1).max())]
    best_first = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    suppresses = pairwise_iou(best_first, best_first).gt_(_largest_not_above(iou_threshold, boxes.dtype))
    keep = valid.gather(1, order).to(boxes.dtype)  # 1 and 0: a CPU multiplies many times faster than it ands bools
    for n in range(order.shape[1] - 1):  # keep_j = valid_j and there is no i before j with keep_i and iou_ij > t
        keep[:, n + 1 :].addcmul_(keep[:, n : n + 1], suppresses[:, n, n + 1 :], value=-1).clamp_(min=0)
    return torch.zeros_like(valid).scatter(1, order, keep > 0)


@lru_cache
def _largest_not_above(threshold: float, dtype: torch.dtype) -> float:
    """The threshold in the boxes' precision, rounded down: `iou > t` then decides as in float64."""
    if dtype == torch.float64:
        return threshold
    rounded = np.float32(threshold)
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf)))


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Split boxes [..., 4] into centres [..., 2] and sizes [..., 2], both as x y."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def _check_boxes(boxes: Tensor, name: str, axes: int = 1) -> None:
    if boxes.ndim < axes or boxes.shape[-1] != 4:
        expected = "[..., 4]" if axes == 1 else "[..., N, 4]"
        raise ShapeError(f"{name} must have the axes {expected}, but its shape is {list(boxes.shape)}.")

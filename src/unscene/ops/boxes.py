"""Boxes as arithmetic: overlaps, clipping, and the regression targets of Faster R-CNN.

A box is `x1 y1 x2 y2` in pixels, end exclusive. Every function takes any leading axes and keeps the dtype it is given.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unscene.errors import ShapeError

LARGEST_LOG_SCALE = math.log(1000 / 16)  # an anchor grows at most 62.5 fold: exp of an untrained output stays finite


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the deltas that turn each anchor into its box (Faster R-CNN, Eq. 2).

    t_x = (x - x_a) / w_a,  t_y = (y - y_a) / h_a,  t_w = log(w / w_a),  t_h = log(h / h_a),  with x y the centre.

    Args:
        boxes: [..., 4] with positive sides; a side of zero has no logarithm and gives -inf.
        anchors: [..., 4] with positive sides; the leading axes broadcast with those of `boxes`.

    Returns:
        deltas: [..., 4] as (t_x, t_y, t_w, t_h); no unit. `decode_boxes` is the inverse.

    Raises:
        ShapeError: a last axis is not 4.
    """
    _check_boxes(boxes, "boxes")
    _check_boxes(anchors, "anchors")
    centre, size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    return torch.cat([(centre - anchor_centre) / anchor_size, (size / anchor_size).log()], dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor, clip: float = LARGEST_LOG_SCALE) -> Tensor:
    """Return the boxes that the deltas make of the anchors: the inverse of `encode_boxes`.

    Args:
        deltas: [..., 4] as (t_x, t_y, t_w, t_h).
        anchors: [..., 4] pixels, with positive sides; the leading axes broadcast with those of `deltas`.
        clip: t_w and t_h are held at or below this; the gradient is zero beyond it.

    Returns:
        boxes: [..., 4] pixels, not clipped to the image.

    Raises:
        ShapeError: a last axis is not 4.
    """
    _check_boxes(deltas, "deltas")
    _check_boxes(anchors, "anchors")
    anchor_centre, anchor_size = _centre_and_size(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    half = 0.5 * anchor_size * deltas[..., 2:].clamp(max=clip).exp()
    return torch.cat([centre - half, centre + half], dim=-1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of every box of one set with every box of another.

    Args:
        first: [..., N, 4] pixels.
        second: [..., M, 4] pixels; the leading axes broadcast with those of `first`.

    Returns:
        iou: [..., N, M] in [0, 1]. A box without area (also one whose end lies before its start) overlaps nothing: 0.

    Raises:
        ShapeError: a last axis is not 4, or there is no axis of boxes.
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
    """Return the part of each box that lies inside the image.

    Args:
        boxes: [..., 4] pixels.
        height: H of the image.
        width: W of the image.

    Returns:
        boxes: [..., 4] with x in [0, W] and y in [0, H]; a box wholly outside has no area.

    Raises:
        ShapeError: the last axis is not 4.
    """
    _check_boxes(boxes, "boxes")
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Split boxes [..., 4] into centres [..., 2] and sizes [..., 2], both as x y."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def _check_boxes(boxes: Tensor, name: str, axes: int = 1) -> None:
    if boxes.ndim < axes or boxes.shape[-1] != 4:
        wanted = "[..., 4]" if axes == 1 else "[..., N, 4]"
        raise ShapeError(f"{name} must have the axes {wanted}, but its shape is {list(boxes.shape)}.")

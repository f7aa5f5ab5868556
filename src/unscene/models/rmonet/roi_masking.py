"""ROI masking (S4Net, Fan et al., 2019; R-MONet, Section 2, Fig. 22b): a region as a ternary map over the features."""

from __future__ import annotations

import torch
from torch import Tensor

from unscene.errors import check_shape
from unscene.ops.boxes import clip_boxes


def inside_boxes(boxes: Tensor, size: tuple[int, int], stride: int = 1, expand: float = 0.0) -> Tensor:
    """Return which cells of a grid the boxes touch, after widening them.

    A cell of column i covers the pixels from i * stride to (i + 1) * stride; it counts when the widened box covers
    any part of it: floor(x1 / stride) <= i < ceil(x2 / stride). So no box is lost on a coarse grid. Parts
    outside of the image are cut off. (S4Net's public code loses the ring at the top and left edges.)

    Args:
        boxes: [B, N, 4], x1 y1 x2 y2 in pixels. A box without area touches nothing.
        size: height and width of the grid, in cells.
        stride: pixels a cell.
        expand: each side of the box moves outwards by this share of the box's width or height.

    Returns:
        [B, N, 1, *size] bool.

    Raises:
        ShapeError: `boxes` has other axes.
    """
    first, end = touched_pixels(boxes, size, stride, expand).chunk(2, dim=-1)
    columns = torch.arange(size[1], device=boxes.device, dtype=boxes.dtype)
    rows = torch.arange(size[0], device=boxes.device, dtype=boxes.dtype)
    across = (columns >= first[..., :1]) & (columns < end[..., :1])  # [B, N, W]
    down = (rows >= first[..., 1:]) & (rows < end[..., 1:])  # [B, N, H]
    return (down[..., :, None] & across[..., None, :]).unsqueeze(2)


def touched_pixels(boxes: Tensor, size: tuple[int, int], stride: int = 1, expand: float = 0.0) -> Tensor:
    """Return the cells that each widened box touches, as a box of whole cells; arguments and errors as `inside_boxes`.

    Returns:
        [B, N, 4] x1 y1 x2 y2 in cells, end exclusive, within the grid; no area where the box has none.
    """
    check_shape(boxes, "B N 4", "boxes")
    corner, opposite = boxes[..., :2], boxes[..., 2:]
    side = opposite - corner
    first = ((corner - expand * side) / stride).floor()
    end = ((opposite + expand * side) / stride).ceil()
    end = torch.where((side > 0).all(-1, keepdim=True), end, first)
    return clip_boxes(torch.cat([first, end], dim=-1), *size)


def roi_mask(boxes: Tensor, size: tuple[int, int], stride: int = 1, expand: float = 0.3) -> Tensor:
    """Return the ternary map of each box: +1 inside, -1 on the ring around it, 0 elsewhere (Fig. 22b).

    Arguments and errors as `inside_boxes`; `expand` is the width of the ring, the paper's sigma = .3.

    Returns:
        [B, N, 1, *size] in the boxes' dtype.
    """
    inner = inside_boxes(boxes, size, stride)
    outer = inside_boxes(boxes, size, stride, expand)
    return 2 * inner.to(boxes.dtype) - outer.to(boxes.dtype)

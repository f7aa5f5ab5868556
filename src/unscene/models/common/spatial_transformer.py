"""Cut boxes out of images and paste maps back over boxes (Jaderberg et al., 2015), with gradients to images and maps.

Boxes have no rotation, so resampling is one matrix for the rows and one for the columns: out = R_y map R_x^T. Two
batched products replace a gather. They are fast, and their gradients are deterministic on a GPU, too.

Boxes are x1 y1 x2 y2 in pixels, results float32 or better. `crop_boxes` and `paste_boxes` give boxes no gradient;
`unscene.ops.glimpses` does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape

SMALLEST_SIDE = 1e-3  # pixels; a box without area would divide by zero


def whole_image_box(size: int, device: torch.device) -> Tensor:
    """Return [4], the box of an image of `size` pixels, without a copy from the host, which would wait for it."""
    return F.pad(torch.full((2,), float(size), device=device), (2, 0))


def crop_boxes(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the content of each box [S, 4] of its image [S, C, H, W], resampled to [S, C, *size].

    Bilinear if a box is enlarged. If it is reduced, each cell averages with a triangle as wide as two cells, so that
    every pixel counts. A cell averages only pixels of the image; a cell without one is 0.
    """
    shape = check_shape(images, "S C H W", "images")
    check_shape(boxes, f"{shape['S']} 4", "boxes")
    rows = _averaging(boxes[:, 1], boxes[:, 3], size[0], shape["H"])
    columns = _averaging(boxes[:, 0], boxes[:, 2], size[1], shape["W"])
    return _resampled(images, rows, columns)


def paste_boxes(maps: Tensor, boxes: Tensor, size: tuple[int, int], outside: float | None = 0.0) -> Tensor:
    """Return images [S, C, *size], on each of which a map [S, C, h, w] is spread over its box [S, 4], bilinearly.

    `outside` is the value of the pixels whose centre is not in the box; None: the map's edge is repeated there.
    """
    shape = check_shape(maps, "S C h w", "maps")
    check_shape(boxes, f"{shape['S']} 4", "boxes")
    rows, inside_rows = _interpolation(boxes[:, 1], boxes[:, 3], size[0], shape["h"])
    columns, inside_columns = _interpolation(boxes[:, 0], boxes[:, 2], size[1], shape["w"])
    if outside is None:
        return _resampled(maps, rows, columns)
    pasted = _resampled(maps, rows * inside_rows.unsqueeze(2), columns * inside_columns.unsqueeze(2))
    if outside:
        inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
        pasted = torch.where(inside, pasted, outside)
    return pasted


@torch.no_grad()
def _averaging(low: Tensor, high: Tensor, cells: int, pixels: int) -> Tensor:
    """[S, cells, pixels] weights of an image's pixels in each cell of the interval from low to high [S]."""
    step = ((high - low).clamp_min(SMALLEST_SIDE) / cells).unsqueeze(1)  # [S, 1] pixels a cell
    centres = low.unsqueeze(1) + (torch.arange(cells, device=low.device) + 0.5) * step  # [S, cells]
    positions = torch.arange(pixels, device=low.device) + 0.5
    distance = (positions - centres.unsqueeze(2)).abs()
    weights = (1 - distance / step.clamp_min(1).unsqueeze(2)).clamp_min(0)
    return weights / weights.sum(dim=2, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def _interpolation(low: Tensor, high: Tensor, pixels: int, cells: int) -> tuple[Tensor, Tensor]:
    """[S, pixels, cells] weights of a map's cells at each pixel, and [S, pixels] whether it lies from low to high."""
    positions = torch.arange(pixels, device=low.device) + 0.5
    side = (high - low).clamp_min(SMALLEST_SIDE).unsqueeze(1)
    in_cells = ((positions - low.unsqueeze(1)) / side * cells - 0.5).clamp(0, cells - 1)  # [S, pixels]
    distance = (in_cells.unsqueeze(2) - torch.arange(cells, device=low.device)).abs()
    inside = (positions > low.unsqueeze(1)) & (positions < high.unsqueeze(1))
    return (1 - distance).clamp_min(0), inside


def _resampled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows [S, H, h] @ maps [S, C, h, w] @ columns [S, W, w]^T, not in half precision, which would blur edges."""
    with torch.autocast(maps.device.type, enabled=False):
        exact = maps if maps.dtype == torch.float64 else maps.float()
        return rows.to(exact).unsqueeze(1) @ (exact @ columns.to(exact).transpose(1, 2).unsqueeze(1))

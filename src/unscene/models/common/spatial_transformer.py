"""Cut boxes out of images and paste maps back over boxes (Jaderberg et al., 2015), differentiably in what is resampled.

Boxes have no rotation, so resampling is one matrix for the rows and one for the columns: out = R_y map R_x^T. Two
batched products instead of a gather: quick, and with gradients that are deterministic on a GPU, too.

`crop_boxes` and `paste_boxes` take boxes as they are; `cut_glimpses` and `paste_glimpses` are differentiable in the
boxes as well, so that a network learns where to look.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape
from unscene.models.common.precision import at_least_float32

SMALLEST_SIDE = 1e-3  # pixels; a box without area would divide by zero


def whole_image_box(size: int, device: torch.device) -> Tensor:
    """Return [4], the box of all of an image of `size` pixels; filled there, since a copy would make the host wait."""
    return F.pad(torch.full((2,), float(size), device=device), (2, 0))


def crop_boxes(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what each box shows of its image, resampled to one size.

    Bilinear where a box is enlarged; where it is shrunk, each cell averages (a triangle as wide as two cells), so that
    nothing between the cells is lost. A cell sees only what lies in the image; one that sees nothing is 0.

    Args:
        images: [S, C, H, W].
        boxes: [S, 4] x1 y1 x2 y2 in pixels; no gradient flows into them.
        size: height and width of the answer.

    Returns:
        [S, C, *size], float32 or better.

    Raises:
        ShapeError: axes that do not fit together.
    """
    shape = check_shape(images, "S C H W", "images")
    check_shape(boxes, f"{shape['S']} 4", "boxes")
    rows = _averaging(boxes[:, 1], boxes[:, 3], size[0], shape["H"])
    columns = _averaging(boxes[:, 0], boxes[:, 2], size[1], shape["W"])
    return _resampled(images, rows, columns)


def paste_boxes(maps: Tensor, boxes: Tensor, size: tuple[int, int], outside: float | None = 0.0) -> Tensor:
    """Draw each map over its box, bilinearly.

    Args:
        maps: [S, C, h, w], spread over the box edge to edge.
        boxes: [S, 4] x1 y1 x2 y2 in pixels; no gradient flows into them.
        size: height and width of the image.
        outside: value of the pixels whose centre is not in the box; None: there the map's edge goes on.

    Returns:
        [S, C, *size], float32 or better.

    Raises:
        ShapeError: axes that do not fit together.
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


def cut_glimpses(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return N glimpses of each image, sampled bilinearly, differentiably in the boxes.

    A cell samples the image at its centre; beyond the image's outer pixels it fades to 0 within one pixel. (PyTorch's
    `grid_sample` with zero padding and corners that are not aligned gives the same.)

    Args:
        images: [B, C, H, W].
        boxes: [B, N, 4] x1 y1 x2 y2 in pixels, also partly or wholly outside of the image.
        size: height and width of the glimpses.

    Returns:
        [B, N, C, *size], float32 or better.

    Raises:
        ShapeError: axes that do not fit together.
    """
    shape = check_shape(images, "B C H W", "images")
    check_shape(boxes, f"{shape['B']} N 4", "boxes")
    rows = _samples(boxes[..., 1], boxes[..., 3], size[0], shape["H"])  # [B, N, h, H]
    columns = _samples(boxes[..., 0], boxes[..., 2], size[1], shape["W"])  # [B, N, w, W]
    with torch.autocast(images.device.type, enabled=False):
        exact = at_least_float32(images).flatten(1, 2)  # [B, C H, W]: no copy of the image for each glimpse
        across = exact @ columns.to(exact).flatten(1, 2).transpose(1, 2)  # [B, C H, N w]
        across = across.view(*images.shape[:3], -1, size[1]).permute(0, 3, 1, 2, 4)  # [B, N, C, H, w]
        glimpses: Tensor = rows.to(exact).unsqueeze(2) @ across
        return glimpses


def paste_glimpses(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw each map over its box on an image of zeros, bilinearly and differentiably in the boxes.

    A map fades to 0 within half a cell beyond its box, and within the half before it, as `grid_sample` has it.

    Args:
        maps: [B, N, C, h, w].
        boxes: [B, N, 4] x1 y1 x2 y2 in pixels; a side below `SMALLEST_SIDE` is taken for that.
        size: height and width of the image.

    Returns:
        [B, N, C, *size], float32 or better.

    Raises:
        ShapeError: axes that do not fit together.
    """
    shape = check_shape(maps, "B N C h w", "maps")
    check_shape(boxes, f"{shape['B']} {shape['N']} 4", "boxes")
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(SMALLEST_SIDE)
    start = -boxes[..., :2] / sides  # the image's left and upper edge, in sides of the box

    def weights(axis: int, pixels: int, cells: int) -> Tensor:
        first = start[..., axis]
        last = first + pixels / sides[..., axis]
        return _samples(first * cells, last * cells, pixels, cells).flatten(0, 1)  # [B N, pixels, cells]

    rows, columns = weights(1, size[0], shape["h"]), weights(0, size[1], shape["w"])
    pasted: Tensor = _resampled(maps.flatten(0, 1), rows, columns).unflatten(0, maps.shape[:2])
    return pasted


def _samples(low: Tensor, high: Tensor, count: int, cells: int) -> Tensor:
    """[..., count, cells] weights of a line's cells at samples spread evenly over the stretch from low to high."""
    steps = (torch.arange(count, device=low.device, dtype=low.dtype) + 0.5) / count
    places = low.unsqueeze(-1) + (high - low).unsqueeze(-1) * steps - 0.5
    distance = (places.unsqueeze(-1) - torch.arange(cells, device=low.device)).abs()
    return (1 - distance).clamp_min(0)


@torch.no_grad()
def _averaging(low: Tensor, high: Tensor, cells: int, pixels: int) -> Tensor:
    """[S, cells, pixels] weights of an image's pixels in each cell of the stretch from low to high [S]."""
    step = ((high - low).clamp_min(SMALLEST_SIDE) / cells).unsqueeze(1)  # [S, 1] pixels a cell
    centres = low.unsqueeze(1) + (torch.arange(cells, device=low.device) + 0.5) * step  # [S, cells]
    places = torch.arange(pixels, device=low.device) + 0.5
    distance = (places - centres.unsqueeze(2)).abs()
    weights = (1 - distance / step.clamp_min(1).unsqueeze(2)).clamp_min(0)
    return weights / weights.sum(dim=2, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def _interpolation(low: Tensor, high: Tensor, pixels: int, cells: int) -> tuple[Tensor, Tensor]:
    """[S, pixels, cells] weights of a map's cells at each pixel, and [S, pixels] whether it lies from low to high."""
    places = torch.arange(pixels, device=low.device) + 0.5
    side = (high - low).clamp_min(SMALLEST_SIDE).unsqueeze(1)
    place = ((places - low.unsqueeze(1)) / side * cells - 0.5).clamp(0, cells - 1)  # [S, pixels], in cells
    distance = (place.unsqueeze(2) - torch.arange(cells, device=low.device)).abs()
    inside = (places > low.unsqueeze(1)) & (places < high.unsqueeze(1))
    return (1 - distance).clamp_min(0), inside


def _resampled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows [S, H, h] @ maps [S, C, h, w] @ columns [S, W, w]^T, not in half precision: an edge's place would blur."""
    with torch.autocast(maps.device.type, enabled=False):
        exact = maps if maps.dtype == torch.float64 else maps.float()
        return rows.to(exact).unsqueeze(1) @ (exact @ columns.to(exact).transpose(1, 2).unsqueeze(1))

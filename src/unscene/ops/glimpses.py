"""Look at images through boxes, and paste what was seen back over them (Jaderberg et al., 2015).

Everything is differentiable in the boxes, so that a network learns where to look. Boxes have no rotation, so resampling
is one matrix for the rows and one for the columns: out = R_y map R_x^T. A map's side of h cells is spread over the box
edge to edge; it fades to 0 within half a cell beyond the box, and within the half before it, as PyTorch's `grid_sample`
with zero padding and corners that are not aligned has it.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.errors import check_shape
from unscene.ops.plain import use_plain
from unscene.ops.threads import on_all_threads

SMALLEST_SIDE = 1e-3  # pixels; a box without area would divide by zero


class Composite(NamedTuple):
    """Maps pasted over their boxes, of which the nearest wins a pixel.

    Attributes:
        image: [B, 3, H, W], sum_n w_n a_n c_n.
        alpha: [B, 1, H, W], sum_n w_n a_n.
        masks: [B, M, 1, H, W] of the chosen maps, w_n a_n; no gradient flows into them.
        objects: [B, M, 3, H, W] of the chosen maps, a_n c_n; no gradient flows into them.
        object_alpha: [B, M, 1, H, W] of the chosen maps, a_n; no gradient flows into them.
    """

    image: Tensor
    alpha: Tensor
    masks: Tensor
    objects: Tensor
    object_alpha: Tensor


def cut_glimpses(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return N glimpses of each image, sampled bilinearly at the cells' centres.

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
    if images.device.type == "cpu" and images.dtype == torch.float32 and not use_plain():
        return _sampled(images, boxes.float(), size)
    rows = _samples(boxes[..., 1], boxes[..., 3], size[0], shape["H"])  # [B, N, h, H]
    columns = _samples(boxes[..., 0], boxes[..., 2], size[1], shape["W"])  # [B, N, w, W]
    with torch.autocast(images.device.type, enabled=False):
        exact = _exact(images).flatten(1, 2)  # [B, C H, W]: no copy of the image for each glimpse
        across = exact @ columns.to(exact).flatten(1, 2).transpose(1, 2)  # [B, C H, N w]
        across = across.view(*images.shape[:3], -1, size[1]).permute(0, 3, 1, 2, 4)  # [B, N, C, H, w]
        glimpses: Tensor = rows.to(exact).unsqueeze(2) @ across
        return glimpses


def _sampled(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`cut_glimpses` by `grid_sample`, all glimpses of an image as one tall one."""
    low, side = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    pixels = torch.tensor(images.shape[:1:-1], device=boxes.device)  # W, H
    start, step = 2 * low / pixels - 1, 2 * side / pixels  # [B, N, 2] in grid_sample's units
    x, y = (
        start[..., axis, None] + step[..., axis, None] * (torch.arange(count, device=boxes.device) + 0.5) / count
        for axis, count in enumerate(reversed(size))
    )
    grid = torch.stack(torch.broadcast_tensors(x.unsqueeze(2), y.unsqueeze(3)), dim=-1)  # [B, N, h, w, 2]
    with torch.autocast(images.device.type, enabled=False):
        sampled = F.grid_sample(images, grid.flatten(1, 2), align_corners=False)  # [B, C, N h, w]
    glimpses: Tensor = sampled.unflatten(2, (-1, size[0])).transpose(1, 2)
    return glimpses


def paste_glimpses(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return each map over its box on an image of zeros.

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
    rows = _weights(_pixels_in_cells(boxes, 1, size[0], shape["h"]), shape["h"])  # [B, N, H, h]
    columns = _weights(_pixels_in_cells(boxes, 0, size[1], shape["w"]), shape["w"])  # [B, N, W, w]
    with torch.autocast(maps.device.type, enabled=False):  # not in half precision: an edge's location would blur
        exact = _exact(maps)
        pasted: Tensor = rows.to(exact).unsqueeze(2) @ (exact @ columns.to(exact).transpose(2, 3).unsqueeze(2))
        return pasted


def paste_borders(weight: Tensor, boxes: Tensor, cells: int, width: int, size: tuple[int, int]) -> Tensor:
    """Return sum_n weight_n times the border of box n: a pasted map that is 1 within `width` cells of its edge, else 0.

    A border is a square less its inside, and each of these is a product of a row's and a column's profile.

    Args:
        weight: [B, N].
        boxes: [B, N, 4] x1 y1 x2 y2 in pixels.
        cells: height and width of the maps.
        width: of the border, in cells.
        size: height and width of the image.

    Returns:
        [B, 1, *size], float32 or better.
    """
    profiles = []
    for axis, pixels in ((1, size[0]), (0, size[1])):
        t = _pixels_in_cells(boxes, axis, pixels, cells)  # [B, N, pixels]
        inner = t - width
        whole = torch.minimum(t + 1, cells - t).clamp(0, 1)
        inside = torch.minimum(inner + 1, cells - 2 * width - inner).clamp(0, 1)
        profiles.append((whole, inside))
    (rows, inside_rows), (columns, inside_columns) = profiles
    with torch.autocast(boxes.device.type, enabled=False):
        down = torch.cat([weight.unsqueeze(2) * rows, -weight.unsqueeze(2) * inside_rows], dim=1)  # [B, 2 N, H]
        return (down.transpose(1, 2) @ torch.cat([columns, inside_columns], dim=1)).unsqueeze(1)


def composite_glimpses(
    maps: Tensor, boxes: Tensor, nearness: Tensor, chosen: Tensor, size: tuple[int, int]
) -> Composite:
    """Paste maps over their boxes and share each pixel by a softmax: w_n = softmax_n(nearness_n a_n).

    On a CPU with numba, float32 maps are pasted on their boxes only, and no map of the image's size is kept of each.

    Args:
        maps: [B, N, 4, h, w], a_n c_n (three colours) and a_n, from 0.
        boxes: [B, N, 4] x1 y1 x2 y2 in pixels.
        nearness: [B, N], 0 to 100.
        chosen: [B, M] indices of the maps whose layers are wanted.
        size: height and width of the image.

    Raises:
        ShapeError: axes that do not fit together.
    """
    shape = check_shape(maps, "B N 4 h w", "maps")
    check_shape(boxes, f"{shape['B']} {shape['N']} 4", "boxes")
    check_shape(nearness, f"{shape['B']} {shape['N']}", "nearness")
    check_shape(chosen, f"{shape['B']} M", "chosen")
    if _has_fast_body(maps):
        image, masks, objects = _Composite.apply(maps, boxes.float(), nearness.float(), chosen, size)
    else:
        image, masks, objects = plain_composite(maps, boxes, nearness, chosen, size)
    colour, alpha = image.split([3, 1], dim=1)
    return Composite(colour, alpha, masks, *objects.split([3, 1], dim=2))


def plain_composite(
    maps: Tensor, boxes: Tensor, nearness: Tensor, chosen: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition of `composite_glimpses`: [B, 4, H, W], [B, M, 1, H, W] and [B, M, 4, H, W]."""
    pasted = paste_glimpses(maps, boxes, size)
    alpha = pasted[:, :, 3:]
    weights = (nearness[:, :, None, None, None] * alpha).softmax(dim=1)
    layers = chosen[:, :, None, None, None]
    masks = (weights * alpha).detach().take_along_dim(layers, dim=1)
    return (weights * pasted).sum(dim=1), masks, pasted.detach().take_along_dim(layers, dim=1)


def _samples(low: Tensor, high: Tensor, count: int, cells: int) -> Tensor:
    """[..., count, cells] weights of a line's cells at samples spread evenly over the range from low to high."""
    steps = (torch.arange(count, device=low.device, dtype=low.dtype) + 0.5) / count
    return _weights(low.unsqueeze(-1) + (high - low).unsqueeze(-1) * steps - 0.5, cells)


def _pixels_in_cells(boxes: Tensor, axis: int, pixels: int, cells: int) -> Tensor:
    """[B, N, pixels], where an image's pixels lie on a line of cells over each box; cell c's centre is at c."""
    low = boxes[..., axis].unsqueeze(-1)
    side = (boxes[..., axis + 2].unsqueeze(-1) - low).clamp_min(SMALLEST_SIDE)
    centres = torch.arange(pixels, device=boxes.device, dtype=boxes.dtype) + 0.5
    return (centres - low) / side * cells - 0.5


def _weights(t: Tensor, cells: int) -> Tensor:
    """[..., cells] weights of the cells at locations t [...] between them."""
    return (1 - (t.unsqueeze(-1) - torch.arange(cells, device=t.device)).abs()).clamp_min(0)


def _exact(maps: Tensor) -> Tensor:
    return maps if maps.dtype == torch.float64 else maps.float()


@cache
def _compiled() -> ModuleType | None:
    try:
        from unscene.ops import glimpses_numba
    except ImportError:
        return None
    return glimpses_numba


def _has_fast_body(maps: Tensor) -> bool:
    fits = maps.device.type == "cpu" and maps.dtype == torch.float32 and maps.numel() > 0
    return fits and not use_plain() and _compiled() is not None


class _Composite(Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, boxes: Tensor, nearness: Tensor, chosen: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        compiled = _compiled()
        assert compiled is not None
        batch, count = nearness.shape
        maps = maps.permute(0, 1, 3, 4, 2).contiguous()
        boxes, nearness = boxes.contiguous(), nearness.contiguous()
        layers = torch.full((batch, count), -1).scatter_(1, chosen, torch.arange(chosen.shape[1]).expand(batch, -1))
        image, total = maps.new_empty(batch, *size, 4), maps.new_empty(batch, *size)
        masks = maps.new_zeros(batch, chosen.shape[1], 1, *size)
        objects = maps.new_zeros(batch, chosen.shape[1], 4, *size)
        inputs = [each.detach().numpy() for each in (maps, boxes, nearness)]
        outputs = [each.numpy() for each in (layers, image, total, masks[:, :, 0], objects)]

        def part(start: int, stop: int) -> None:
            here = slice(start, stop)
            compiled.forward(*(each[here] for each in inputs), SMALLEST_SIDE, *(each[here] for each in outputs))

        on_all_threads(part, batch)
        ctx.save_for_backward(maps, boxes, nearness, image, total)
        ctx.mark_non_differentiable(masks, objects)
        return image.permute(0, 3, 1, 2), masks, objects

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        compiled = _compiled()
        assert compiled is not None
        maps, boxes, nearness, image, total = ctx.saved_tensors
        grad_image = grad_image.permute(0, 2, 3, 1).contiguous()
        grads = [torch.zeros_like(maps), torch.zeros_like(boxes), torch.zeros_like(nearness)]
        inputs = [each.numpy() for each in (grad_image, maps, boxes, nearness)]
        outputs = [each.numpy() for each in (image, total, *grads)]

        def part(start: int, stop: int) -> None:
            here = slice(start, stop)
            compiled.backward(*(each[here] for each in inputs), SMALLEST_SIDE, *(each[here] for each in outputs))

        on_all_threads(part, len(maps))
        return grads[0].permute(0, 1, 4, 2, 3), grads[1], grads[2], None, None

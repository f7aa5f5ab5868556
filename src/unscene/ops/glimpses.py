"""Sample images through boxes, and paste maps over boxes (Jaderberg et al., 2015), differentiable in the boxes.

A map's cells are spread over its box from edge to edge. A pasted map fades to 0 from half a cell inside of the box to
half a cell outside, as PyTorch's `grid_sample` with zero padding and `align_corners=False`. Boxes have no rotation, so
a pasted map is R_y map R_x^T: one matrix for the rows and one for the columns. Boxes [B, N, 4] are x1 y1 x2 y2 in
pixels. Results are float32 or better. Axes that do not fit together are a ShapeError.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.errors import check_shape
from unscene.ops.dispatch import at_least_float32, compiled_module, use_plain
from unscene.ops.numba_jit import on_all_threads

COMPILED = "unscene.ops.glimpses_numba"
MIN_SIDE = 1e-3  # pixels; a box without area would divide by zero


def cut_glimpses(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return N glimpses [B, N, C, *size] of each image [B, C, H, W], sampled bilinearly at the cells' centres.

    A box may be partly or completely outside of the image.
    """
    shape = check_shape(images, "B C H W", "images")
    check_shape(boxes, f"{shape['B']} N 4", "boxes")
    images = at_least_float32(images)
    boxes = boxes.to(images)
    low, side = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    x, y = (  # in grid_sample's units, from -1 to 1
        (2 * low[..., axis, None] / pixels - 1)
        + 2 * side[..., axis, None] / pixels * (torch.arange(count, device=boxes.device) + 0.5) / count
        for axis, (pixels, count) in enumerate(((shape["W"], size[1]), (shape["H"], size[0])))
    )
    grid = torch.stack(torch.broadcast_tensors(x.unsqueeze(2), y.unsqueeze(3)), dim=-1)  # [B, N, h, w, 2]
    with torch.autocast(images.device.type, enabled=False):  # all glimpses of an image are one tall one
        sampled = F.grid_sample(images, grid.flatten(1, 2), align_corners=False)  # [B, C, N h, w]
    return sampled.unflatten(2, (-1, size[0])).transpose(1, 2)


def paste_glimpses(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images [B, N, C, *size], each zero except for one of the maps [B, N, C, h, w] over its box."""
    shape = check_shape(maps, "B N C h w", "maps")
    check_shape(boxes, f"{shape['B']} {shape['N']} 4", "boxes")
    maps = at_least_float32(maps)
    rows = _weights(_cells_at_pixels(boxes, 1, size[0], shape["h"]), shape["h"]).to(maps)  # [B, N, H, h]
    columns = _weights(_cells_at_pixels(boxes, 0, size[1], shape["w"]), shape["w"]).to(maps)  # [B, N, W, w]
    with torch.autocast(maps.device.type, enabled=False):  # half precision would blur the location of an edge
        return rows.unsqueeze(2) @ (maps @ columns.transpose(2, 3).unsqueeze(2))


def paste_borders(weight: Tensor, boxes: Tensor, cells: int, width: int, size: tuple[int, int]) -> Tensor:
    """Return sum_n weight_n border_n, [B, 1, *size]: a pasted map is 1 within `width` cells of its edge, else 0.

    A border is a square minus its inside; each of these is a product of a profile of rows and one of columns. The
    weights are [B, N]; `cells` is the height and width of the maps.
    """
    if use_plain():
        border = F.pad(weight.new_zeros(cells - 2 * width, cells - 2 * width), [width] * 4, value=1.0)
        return paste_glimpses(weight[:, :, None, None, None] * border, boxes, size).sum(dim=1)
    profiles = []
    for axis, pixels in ((1, size[0]), (0, size[1])):
        t = _cells_at_pixels(boxes, axis, pixels, cells)  # [B, N, pixels]
        inner = t - width
        square = torch.minimum(t + 1, cells - t).clamp(0, 1)
        inside = torch.minimum(inner + 1, cells - 2 * width - inner).clamp(0, 1)
        profiles.append((square, inside))
    (rows, inside_rows), (columns, inside_columns) = profiles
    with torch.autocast(boxes.device.type, enabled=False):
        down = torch.cat([weight.unsqueeze(2) * rows, -weight.unsqueeze(2) * inside_rows], dim=1)  # [B, 2 N, H]
        return (down.transpose(1, 2) @ torch.cat([columns, inside_columns], dim=1)).unsqueeze(1)


def composite_glimpses(
    maps: Tensor, boxes: Tensor, nearness: Tensor, chosen: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Paste maps over their boxes and share each pixel by a softmax: w_n = softmax_n(nearness_n a_n).

    On a CPU with numba, float32 maps are pasted on their boxes only, without an image for each map. The maps [B, N, 4,
    h, w] hold a_n c_n (three colours) and a_n, at least 0; nearness [B, N] is 0 to 100.

    Returns the image [B, 4, *size], sum_n w_n a_n c_n and sum_n w_n a_n; and without gradient of the `chosen` maps,
    whose indices are [B, M], the masks w_n a_n [B, M, 1, *size], and the layers a_n c_n and a_n [B, M, 4, *size].
    """
    shape = check_shape(maps, "B N 4 h w", "maps")
    check_shape(boxes, f"{shape['B']} {shape['N']} 4", "boxes")
    check_shape(nearness, f"{shape['B']} {shape['N']}", "nearness")
    check_shape(chosen, f"{shape['B']} M", "chosen")
    fits = maps.device.type == "cpu" and maps.dtype == torch.float32 and maps.numel() > 0
    if fits and not use_plain() and compiled_module(COMPILED) is not None:
        padded = F.pad(maps.permute(0, 1, 3, 4, 2), (0, 0, 1, 1, 1, 1))  # [B, N, h + 2, w + 2, 4]: maps fade to 0
        image, log_total = _Composite.apply(padded, boxes.float(), nearness.float(), size)
    else:
        pasted = paste_glimpses(maps, boxes, size)
        logits = nearness[:, :, None, None, None] * pasted[:, :, 3:]
        image, log_total = (logits.softmax(dim=1) * pasted).sum(dim=1), logits.logsumexp(dim=1)
    with torch.no_grad():
        index = torch.arange(len(chosen), device=chosen.device).unsqueeze(1), chosen
        layers = paste_glimpses(maps[index], boxes[index], size)
        alpha = layers[:, :, 3:]
        masks = (nearness[index][:, :, None, None, None] * alpha - log_total.unsqueeze(1)).exp() * alpha
    return image, masks, layers


def _weights(t: Tensor, cells: int) -> Tensor:
    """[..., cells] weights of the cells at locations t [...] between them."""
    return (1 - (t.unsqueeze(-1) - torch.arange(cells, device=t.device)).abs()).clamp_min(0)


def _cells_at_pixels(boxes: Tensor, axis: int, pixels: int, cells: int) -> Tensor:
    """[B, N, pixels] locations of an image's pixels on a line of cells over each box; cell c's centre is at c."""
    low = boxes[..., axis].unsqueeze(-1)
    side = (boxes[..., axis + 2].unsqueeze(-1) - low).clamp_min(MIN_SIDE)
    centres = torch.arange(pixels, device=boxes.device, dtype=boxes.dtype) + 0.5
    return (centres - low) / side * cells - 0.5


class _Composite(Function):
    """The image [B, 4, H, W] and the log of the softmax's denominator [B, 1, H, W], which has no gradient."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, boxes: Tensor, nearness: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        inputs = (maps.contiguous(), boxes.contiguous(), nearness.contiguous())
        image, log_total = maps.new_empty(len(maps), *size, 4), maps.new_empty(len(maps), *size)
        _on_every_image("forward", *inputs, image, log_total)
        ctx.save_for_backward(*inputs, image, log_total)
        ctx.mark_non_differentiable(log_total)
        return image.permute(0, 3, 1, 2), log_total.unsqueeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = [torch.zeros_like(tensor) for tensor in ctx.saved_tensors[:3]]
        _on_every_image("backward", grad_image.permute(0, 2, 3, 1).contiguous(), *ctx.saved_tensors, *grads)
        return *grads, None


def _on_every_image(name: str, *tensors: Tensor) -> None:
    function = getattr(compiled_module(COMPILED), name)
    arrays = [tensor.detach().numpy() for tensor in tensors]

    def run(start: int, stop: int) -> None:
        for index in range(start, stop):
            function(MIN_SIDE, *(array[index] for array in arrays))

    on_all_threads(run, len(arrays[0]))

"""What a level of the UNet head reads: the coarser level doubled, beside a map of which only the region is shown."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.errors import check_shape


def doubled_beside_region(coarse: Tensor, maps: Tensor, ternary: Tensor, image: Tensor) -> Tensor:
    """Return cat([double(coarse), maps[image] * ternary], dim=1), each number written once.

    Written as three operations, it makes copies of copies, forwards and backwards, of the largest tensors of the head.
    Differentiable once, in `coarse` and `maps`.

    Args:
        coarse: [S, C, h, w], doubled by repeating each cell in both directions.
        maps: [B, D, 2h, 2w], of the images.
        ternary: [S, 1, 2h, 2w], what each region shows of its image's map (`roi_mask`).
        image: [S] int64, the image of each region.

    Returns:
        [S, C + D, 2h, 2w], channels last.

    Raises:
        ShapeError: axes that do not fit together.
    """
    size = check_shape(coarse, "S C h w", "coarse")
    height, width = 2 * size["h"], 2 * size["w"]
    check_shape(maps, f"B D {height} {width}", "maps")
    check_shape(ternary, f"{size['S']} 1 {height} {width}", "ternary")
    check_shape(image, f"{size['S']}", "image")
    together: Tensor = _DoubledBesideRegion.apply(coarse, maps, ternary, image)
    return together


class _DoubledBesideRegion(Function):
    @staticmethod
    def forward(ctx: Any, coarse: Tensor, maps: Tensor, ternary: Tensor, image: Tensor) -> Tensor:
        slots, channels, height, width = coarse.shape
        dtype = torch.promote_types(coarse.dtype, maps.dtype)
        shown = ternary.to(dtype).permute(0, 2, 3, 1)
        together = coarse.new_empty(slots, 2 * height, 2 * width, channels + maps.shape[1], dtype=dtype)
        _cells(together)[..., :channels] = coarse.permute(0, 2, 3, 1)[:, :, None, :, None]
        regions = maps.to(dtype).permute(0, 2, 3, 1).contiguous().index_select(0, image)
        torch.mul(regions, shown, out=together[..., channels:])
        ctx.save_for_backward(shown, image)
        ctx.before = (coarse.dtype, maps.dtype, len(maps), channels)
        return together.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        shown, image = ctx.saved_tensors
        coarse_dtype, maps_dtype, images, channels = ctx.before
        gradient = gradient.permute(0, 2, 3, 1).contiguous()
        cells = _cells(gradient)[..., :channels]
        of_coarse = cells[:, :, 0, :, 0] + cells[:, :, 0, :, 1]
        of_coarse.add_(cells[:, :, 1, :, 0]).add_(cells[:, :, 1, :, 1])
        of_regions = gradient[..., channels:] * shown
        of_maps = of_regions.new_zeros(images, *of_regions.shape[1:]).index_add_(0, image, of_regions)
        return (
            of_coarse.to(coarse_dtype).permute(0, 3, 1, 2),
            of_maps.to(maps_dtype).permute(0, 3, 1, 2),
            None,
            None,
        )


def _cells(fine: Tensor) -> Tensor:
    """[S, 2h, 2w, C] -> [S, h, 2, w, 2, C], each coarse cell's four fine ones."""
    slots, height, width, channels = fine.shape
    return fine.view(slots, height // 2, 2, width // 2, 2, channels)

"""Reconstruction quality of each pixel, and the region of the best quality (Liu et al., 2019, Section 2.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import RecipeError, check_shape


def reconstruction_quality(error: Tensor, remaining: Tensor, variance: float) -> Tensor:
    """Return Q = exp(-s sum_c (x_re - x)^2 / (2 sigma_1)) of every pixel (Algorithm 2, line 4).

    Section 2.3 writes sigma^2 for Algorithm 2's sigma_1, which the text calls a variance. Q is 1 where s is 0.

    Args:
        error: [B, 1, H, W], sum_c (x_re - x)^2.
        remaining: [B, 1, H, W], s in [0, 1].
        variance: sigma_1, above 0.

    Returns:
        [B, 1, H, W] in [0, 1].

    Raises:
        ShapeError: axes that do not fit together.
    """
    size = check_shape(error, "B 1 H W", "error")
    check_shape(remaining, f"{size['B']} 1 {size['H']} {size['W']}", "remaining")
    return (error * remaining).mul(-0.5 / variance).exp()


@torch.no_grad()
def best_region(quality: Tensor, side: int) -> Tensor:
    """Return the centre of the square with the largest sum (Section 2.3: a convolution with weights 1, then argmax).

    Line 7 of Algorithm 2 prints the argmax of Q itself; Section 2.3 takes that of the filtered map, as here. Pixels
    outside the image count 0 ("SAME padding").

    Args:
        quality: [B, 1, H, W]; s Q in Algorithm 2, line 6.
        side: of the square in pixels, odd.

    Returns:
        [B, 2] int64, row and column; of equal squares the first in reading order.

    Raises:
        ShapeError: other axes.
        RecipeError: an even side.
    """
    check_shape(quality, "B 1 H W", "quality")
    if side < 1 or side % 2 == 0:
        raise RecipeError(f"side must be odd, so that the square has a centre, not {side}.")
    sums = _sums_along(_sums_along(quality.float(), side, axis=2), side, axis=3)
    best = sums.flatten(1).argmax(dim=1)
    width = quality.shape[3]
    return torch.stack([best // width, best % width], dim=1)


def _sums_along(maps: Tensor, side: int, axis: int) -> Tensor:
    """Sums of `side` neighbours along an axis, 0 beyond the ends. Twice this takes an eighth of `avg_pool2d`'s time."""
    reach, length = side // 2, maps.shape[axis]
    padded = F.pad(maps, (reach, reach) if axis == 3 else (0, 0, reach, reach))
    total = padded.narrow(axis, 0, length).clone()
    for shift in range(1, side):
        total += padded.narrow(axis, shift, length)
    return total

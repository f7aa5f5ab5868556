"""A 3x3 convolution of a map doubled by repeating its cells, without drawing the doubled map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape
from unscene.ops.plain import use_plain


def convolve_doubled(coarse: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the padded 3x3 convolution of the map whose every cell is repeated twice in both directions.

    At any pixel of the doubled map the kernel's nine cells see four cells of the coarse one, so the convolution is a
    transposed one of stride 2 with the 4x4 kernel whose cells are sums of the 3x3 kernel's. In one dimension, with
    y_f = sum_t w_t x_[(f + t - 1) / 2], the kernel is (w_2, w_1 + w_2, w_0 + w_1, w_0). That is 4/9 of the products,
    the same numbers but for the order of adding, and a quarter of the map to keep for the gradients.

    Args:
        coarse: [S, C, h, w].
        weight: [C', C, 3, 3].
        bias: [C'], or None.

    Returns:
        [S, C', 2h, 2w].

    Raises:
        ShapeError: axes that do not fit together.
    """
    channels = check_shape(coarse, "S C h w", "coarse")["C"]
    check_shape(weight, f"D {channels} 3 3", "weight")
    if bias is not None:
        check_shape(bias, f"{len(weight)}", "bias")
    if use_plain():
        return F.conv2d(F.interpolate(coarse, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    flipped = F.pad(weight.flip(2, 3), (1, 1, 1, 1))  # 0 w_2 w_1 w_0 0
    pairs = flipped[:, :, 1:] + flipped[:, :, :-1]
    kernel = pairs[..., 1:] + pairs[..., :-1]
    return F.conv_transpose2d(coarse, kernel.transpose(0, 1), bias, stride=2, padding=1)


def convolve_doubled_and_skip(coarse: Tensor, skip: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the padded 3x3 convolution of cat([coarse doubled, skip]), a UNet's way up, which is never drawn.

    Args:
        coarse: [S, C, h, w].
        skip: [S, D, 2h, 2w].
        weight: [C', C + D, 3, 3].
        bias: [C'], or None.

    Returns:
        [S, C', 2h, 2w].

    Raises:
        ShapeError: axes that do not fit together.
    """
    size = check_shape(coarse, "S C h w", "coarse")
    beside = check_shape(skip, f"{size['S']} D {2 * size['h']} {2 * size['w']}", "skip")["D"]
    check_shape(weight, f"E {size['C'] + beside} 3 3", "weight")
    if use_plain():
        doubled = F.interpolate(coarse, scale_factor=2, mode="nearest")
        return F.conv2d(torch.cat([doubled, skip], dim=1), weight, bias, padding=1)
    weight_coarse, weight_skip = weight.split([size["C"], beside], dim=1)
    return F.conv2d(skip, weight_skip, bias, padding=1).add_(convolve_doubled(coarse, weight_coarse))

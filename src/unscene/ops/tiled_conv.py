"""A 3x3 convolution of a vector tiled over a grid of coordinates, without drawing the tiled map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.ops.plain import use_plain


def convolve_tiled(latents: Tensor, coordinates: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the unpadded 3x3 convolution of cat([the latent at every pixel, coordinates]).

    The tiled latent is the same at every pixel, so the fast body is sum(kernel) z + kernel * coordinates.

    Args:
        latents: [S, D].
        coordinates: [1, C, H + 2, W + 2].
        weight: [C', D + C, 3, 3].
        bias: [C'], or None.

    Returns:
        [S, C', H, W].
    """
    if use_plain():
        tiled = latents[:, :, None, None].expand(-1, -1, *coordinates.shape[2:])
        return F.conv2d(torch.cat([tiled, coordinates.expand(len(latents), -1, -1, -1)], dim=1), weight, bias)
    kernel_latent, kernel_coordinates = weight.split([latents.shape[1], coordinates.shape[1]], dim=1)
    by_latent = F.linear(latents, kernel_latent.sum(dim=(2, 3)), bias)  # [S, C']
    by_coordinates = F.conv2d(coordinates, kernel_coordinates)  # [1, C', H, W]
    # added with the channels last, which is how the convolutions want them
    return (by_latent[:, None, None] + by_coordinates.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

"""Convolutions that do less work than their definition: of small maps, of tiled vectors, of doubled maps, sub-pixel.

The plain body of each is its definition. The fast one gives the same numbers, except for the order of adding. Axes that
do not fit together are a ShapeError.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.ops.dispatch import use_plain

FEW_PIXELS = 16  # of a small map's output; beyond, copying the neighbourhoods costs more than it saves


class SmallMapConv2d(nn.Module):
    """In place of a padded 3x3 `nn.Conv2d` without bias, whose weight it takes; any other one is a RecipeError.

    On a CPU a convolution of 512 channels on 2 x 2 pixels spends its time on laying out the weights. Outputs of at most
    16 pixels are one product of the pixels' neighbourhoods and the weights instead, about four times as fast.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        form = (convolution.kernel_size, convolution.padding, convolution.dilation, convolution.groups)
        if form != ((3, 3), (1, 1), (1, 1), 1) or convolution.bias is not None:
            raise RecipeError(f"only a padded 3x3 convolution without bias can be a SmallMapConv2d, not {convolution}.")
        self.weight = convolution.weight
        self.stride = convolution.stride[0]

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        height, width = (-(-side // self.stride) for side in features.shape[2:])
        if height * width > FEW_PIXELS or features.device.type != "cpu" or use_plain():
            return F.conv2d(features, self.weight, stride=self.stride, padding=1)
        padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # [B, H + 2, W + 2, C]
        rows, columns = (slice(0, self.stride * count, self.stride) for count in (height, width))
        shifted = [padded[:, y:, x:][:, rows, columns] for y in range(3) for x in range(3)]
        neighbourhoods = torch.cat(shifted, dim=3)  # [B, H', W', 9 C]
        return F.linear(neighbourhoods, self.weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)


class SubpixelConv2d(nn.Conv2d):
    """pixel_shuffle(conv1x1(x), factor) (Shi et al., 2016): each pixel becomes factor x factor pixels.

    On a CPU it is one matrix product and one copy, and the result is channels last.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__(in_channels, out_channels * factor**2, 1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """[S, C, H, W] -> [S, C', factor H, factor W]."""
        if x.device.type != "cpu" or use_plain():
            return F.pixel_shuffle(super().forward(x), self.factor)
        f, (size, _, height, width) = self.factor, x.shape
        weight = self.weight.view(-1, f * f, self.in_channels).transpose(0, 1).flatten(0, 1)  # [f f C', C]
        assert self.bias is not None
        bias = self.bias.view(-1, f * f).t().flatten()
        y = F.linear(x.permute(0, 2, 3, 1), weight, bias).view(size, height, width, f, -1)  # [S, H, W, f, f C']
        return y.transpose(2, 3).reshape(size, f * height, f * width, -1).permute(0, 3, 1, 2)


def convolve_tiled(latents: Tensor, coordinates: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the unpadded convolution of cat([the latent at every pixel, coordinates]): [S, C', H, W].

    The tiled latent is the same at every pixel, so the fast body is sum(kernel) z + kernel * coordinates. Latents are
    [S, D], coordinates [1, C, H + k - 1, W + k - 1], the weight [C', D + C, k, k], the bias [C'] or None.
    """
    if use_plain():
        tiled = latents[:, :, None, None].expand(-1, -1, *coordinates.shape[2:])
        return F.conv2d(torch.cat([tiled, coordinates.expand(len(latents), -1, -1, -1)], dim=1), weight, bias)
    kernel_latent, kernel_coordinates = weight.split([latents.shape[1], coordinates.shape[1]], dim=1)
    by_latent = F.linear(latents, kernel_latent.sum(dim=(2, 3)), bias)  # [S, C']
    by_coordinates = F.conv2d(coordinates, kernel_coordinates)  # [1, C', H, W]
    # added with the channels last, the layout that the next convolution reads
    return (by_latent[:, None, None] + by_coordinates.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convolve_doubled(coarse: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the padded 3x3 convolution of a map whose every cell is repeated twice in both directions.

    At any pixel of the doubled map the kernel's nine cells see four cells of the coarse one, so the convolution is a
    transposed one of stride 2 with the 4x4 kernel whose cells are sums of the 3x3 kernel's. In one dimension, with
    y_f = sum_t w_t x_[(f + t - 1) / 2], the kernel is (w_2, w_1 + w_2, w_0 + w_1, w_0): 4/9 of the products.

    The map is [S, C, h, w], the weight [C', C, 3, 3], the bias [C'] or None, the result [S, C', 2h, 2w].
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
    """Return the padded 3x3 convolution of cat([coarse doubled, skip]), a UNet's way up: [S, C', 2h, 2w].

    `coarse` is [S, C, h, w], `skip` [S, D, 2h, 2w], the weight [C', C + D, 3, 3] and the bias [C'] or None.
    """
    size = check_shape(coarse, "S C h w", "coarse")
    skip_channels = check_shape(skip, f"{size['S']} D {2 * size['h']} {2 * size['w']}", "skip")["D"]
    check_shape(weight, f"E {size['C'] + skip_channels} 3 3", "weight")
    if use_plain():
        doubled = F.interpolate(coarse, scale_factor=2, mode="nearest")
        return F.conv2d(torch.cat([doubled, skip], dim=1), weight, bias, padding=1)
    weight_coarse, weight_skip = weight.split([size["C"], skip_channels], dim=1)
    return F.conv2d(skip, weight_skip, bias, padding=1).add_(convolve_doubled(coarse, weight_coarse))

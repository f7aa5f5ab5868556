"""SPACE's networks: normed convolutions, an encoder to a vector, a decoder of sub-pixel convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unscene.ops.convolutions import SubpixelConv2d


def normed_conv(c_in: int, c_out: int, kernel: int, stride: int = 1, norm: bool = True) -> nn.Sequential:
    """A convolution, CELU and group normalisation: maps keep their size, or have it divided by the stride."""
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, padding=(kernel - 1) // 2)
    return nn.Sequential(convolution, nn.CELU(), group_norm(c_out, norm))


def group_norm(channels: int, norm: bool = True) -> nn.Module:
    """At most 16 equal groups of four or more channels; without `norm` the identity."""
    if not norm:
        return nn.Identity()
    groups = max(1, min(16, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def strided_convs(c_in: int, channels: Sequence[int], strides: Sequence[int], norm: bool = True) -> nn.Sequential:
    """One normed convolution for each stride: 4x4 for stride 2, 3x3 for stride 1."""
    layers = zip((c_in, *channels[:-1]), channels, strides, strict=True)
    return nn.Sequential(*(normed_conv(first, second, 2 + stride, stride, norm) for first, second, stride in layers))


class StridedEncoder(nn.Module):
    """Encode images [S, 3, size, size] to vectors [S, out]; `hidden` units between the last map and the vector."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], size: int, hidden: int, out: int, norm: bool = True
    ) -> None:
        super().__init__()
        self.convolutions = strided_convs(3, channels, strides, norm)
        self.to_vector = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * (size // math.prod(strides)) ** 2, hidden),
            nn.CELU(),
            group_norm(hidden, norm),
            nn.Linear(hidden, out),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[S, 3, size, size] -> [S, out]."""
        return self.to_vector(self.convolutions(images.contiguous(memory_format=torch.channels_last)))


class SubpixelDecoder(nn.Module):
    """Decode vectors [S, D] to maps [S, c_out, size, size]; `size` is a power of 2.

    A vector is a map of one pixel with `hidden` channels. Each level of `channels` enlarges it by a sub-pixel
    convolution, by 2 or more, the later levels by more, and then has a 3x3 convolution.
    """

    def __init__(
        self, latent_dim: int, hidden: int, channels: Sequence[int], c_out: int, size: int, norm: bool = True
    ) -> None:
        super().__init__()
        doublings, remainder = divmod(size.bit_length() - 1, len(channels))
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, hidden, 1), nn.CELU(), group_norm(hidden, norm)]
        c_in = hidden
        for level, width in enumerate(channels):
            factor = 2 ** (doublings + (level >= len(channels) - remainder))
            layers += [SubpixelConv2d(c_in, width, factor), nn.CELU()]
            layers += [group_norm(width, norm), normed_conv(width, width, 3, norm=norm)]
            c_in = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(c_in, c_out, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """[S, D] -> [S, c_out, size, size]."""
        return self.layers(latents[:, :, None, None])

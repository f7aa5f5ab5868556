"""SPACE's networks: normed convolutions, an encoder to a vector, a decoder of sub-pixel convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.ops.celu import CELU
from unscene.ops.subpixel_conv import SubpixelConv2d


def normed_convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, norm: bool = True
) -> nn.Sequential:
    """A convolution that keeps the map's size, or divides it by the stride, then CELU, then group normalisation.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel: odd for stride 1, even for stride 2.
        stride: 1 or 2.
        norm: False: without the normalisation.
    """
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2)
    return nn.Sequential(convolution, CELU(), group_norm(out_channels, norm))


def group_norm(channels: int, norm: bool = True) -> nn.Module:
    """At most 16 groups of four or more channels each, as even as they divide; or, without `norm`, nothing."""
    if not norm:
        return nn.Identity()
    groups = max(1, min(16, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def strided_convolutions(
    in_channels: int, channels: Sequence[int], strides: Sequence[int], settings: str, norm: bool = True
) -> nn.Sequential:
    """One normed convolution a layer, 4x4 where it halves the map, else 3x3.

    Args:
        in_channels: of what is read.
        channels: of the layers, at least one.
        strides: of the layers, each 1 or 2.
        settings: what a recipe calls these two, for the errors.
        norm: whether the layers normalise.

    Raises:
        RecipeError: no layer or one without channels, another number of strides than of layers, or another stride.
    """
    if min(channels, default=0) < 1 or len(channels) != len(strides) or not set(strides) <= {1, 2}:
        raise RecipeError(
            f"{settings} must be of at least one layer, with channels of 1 or more and a stride of 1 or 2 for each, "
            f"but there are channels {list(channels)} and strides {list(strides)}."
        )
    layers = zip((in_channels, *channels[:-1]), channels, strides, strict=True)
    return nn.Sequential(*(normed_convolution(c_in, c_out, 2 + stride, stride, norm) for c_in, c_out, stride in layers))


class StridedEncoder(nn.Module):
    """Encode images [S, C, size, size] to vectors [S, out].

    Args:
        in_channels: C.
        channels: of the convolutions.
        strides: of the convolutions, 1 or 2 each.
        size: height and width of the images.
        hidden: units between the smallest map and the vector.
        out: length of the vector.
        settings: what a recipe calls channels and strides, for the errors.
        size_setting: what it calls the size.
        norm: whether the layers normalise.

    Raises:
        RecipeError: the strides do not divide the size, or do not fit the channels.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[int],
        size: int,
        hidden: int,
        out: int,
        settings: str,
        size_setting: str,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.convolutions = strided_convolutions(in_channels, channels, strides, settings, norm)
        smallest, rest = divmod(size, math.prod(strides))
        if rest or not smallest:
            raise RecipeError(
                f"{settings} cannot divide the {size} pixels of {size_setting} by strides {list(strides)}: take fewer "
                f"layers of stride 2, or another size that is a multiple of {math.prod(strides)}."
            )
        self.to_vector = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * smallest**2, hidden),
            CELU(),
            group_norm(hidden, norm),
            nn.Linear(hidden, out),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[S, C, size, size] -> [S, out]."""
        vectors: Tensor = self.to_vector(self.convolutions(images.contiguous(memory_format=torch.channels_last)))
        return vectors


class SubpixelDecoder(nn.Module):
    """Decode vectors [S, D] to maps [S, out_channels, size, size].

    A vector is a map of one pixel. Each level writes factor x factor pixels in the place of one, with a 1x1 convolution
    and a pixel shuffle, and convolves them by 3x3.

    Args:
        latent_dim: D.
        hidden: channels of the map of one pixel.
        channels: of the levels.
        out_channels: of the answer.
        size: height and width of the answer, a power of 2; each level multiplies by 2 or more, the later ones by more.
        settings: what a recipe calls the channels, for the errors.
        size_setting: what it calls the size.
        norm: whether the layers normalise.

    Raises:
        RecipeError: a size that so many levels cannot reach, or a level without channels.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: int,
        channels: Sequence[int],
        out_channels: int,
        size: int,
        settings: str,
        size_setting: str,
        norm: bool = True,
    ) -> None:
        super().__init__()
        doublings = size.bit_length() - 1
        if not channels or 2**doublings != size or doublings < len(channels):
            raise RecipeError(
                f"{settings} cannot draw the {size} pixels of {size_setting} in {len(channels)} levels: the size must "
                f"be a power of 2, and the levels from 1 to {max(1, doublings)}."
            )
        if min(channels) < 1:
            raise RecipeError(f"{settings} must be 1 or more each, not {list(channels)}.")
        self.latent_dim = latent_dim
        doublings_a_level, remainder = divmod(doublings, len(channels))
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, hidden, 1), CELU(), group_norm(hidden, norm)]
        c_in = hidden
        for level, width in enumerate(channels):
            factor = 2 ** (doublings_a_level + (level >= len(channels) - remainder))
            layers += [SubpixelConv2d(c_in, width, factor), CELU()]
            layers += [group_norm(width, norm), normed_convolution(width, width, 3, norm=norm)]
            c_in = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(c_in, out_channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """[S, D] -> [S, out_channels, size, size]."""
        check_shape(latents, f"S {self.latent_dim}", "latents")
        maps: Tensor = self.layers(latents[:, :, None, None])
        return maps

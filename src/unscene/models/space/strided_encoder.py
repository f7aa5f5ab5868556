"""An image down to a vector: normed convolutions, some of which halve it, and a linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.models.space.normed_convolution import group_norm, normed_convolution


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
    before = (in_channels, *channels[:-1])
    layers = zip(before, channels, strides, strict=True)
    return nn.Sequential(*(normed_convolution(one, other, 2 + stride, stride, norm) for one, other, stride in layers))


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
        left, rest = divmod(size, math.prod(strides))
        if rest or not left:
            raise RecipeError(
                f"{settings} cannot divide the {size} pixels of {size_setting} by strides {list(strides)}: take fewer "
                f"layers of stride 2, or another size that is a multiple of {math.prod(strides)}."
            )
        self.to_vector = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * left**2, hidden),
            nn.CELU(),
            group_norm(hidden, norm),
            nn.Linear(hidden, out),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[S, C, size, size] -> [S, out]."""
        vectors: Tensor = self.to_vector(self.convolutions(images.contiguous(memory_format=torch.channels_last)))
        return vectors

"""From images to vectors by residual blocks with spectral normalisation: ReDO's discriminator and code network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.models.redo.spatial_attention import SpatialAttention
from unscene.models.redo.spectral_convolution import orthogonal, spectral_convolution


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip; optionally halves the map.

    Args:
        in_channels: of the input.
        out_channels: of the output; the skip is a 1x1 convolution where they differ.
        halve: average over 2x2 pixels.
        begins_with_relu: False in the first block, which reads an image.
    """

    def __init__(self, in_channels: int, out_channels: int, halve: bool, begins_with_relu: bool = True) -> None:
        super().__init__()
        self.halve, self.begins_with_relu = halve, begins_with_relu
        self.first = spectral_convolution(in_channels, out_channels, 3)
        self.second = spectral_convolution(out_channels, out_channels, 3)
        differ = in_channels != out_channels
        self.skip = spectral_convolution(in_channels, out_channels, 1) if differ else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.first(features.relu() if self.begins_with_relu else features)
        residual = self.second(residual.relu())
        skip: Tensor = self.skip(F.avg_pool2d(features, 2) if self.halve else features)
        return (F.avg_pool2d(residual, 2) if self.halve else residual) + skip


class ResidualEncoder(nn.Module):
    """Residual blocks from an image down to 4x4, a sum over the pixels, and a linear layer.

    Args:
        size: of the images, 4 times a power of 2, at least 16.
        channels: of the first block; each further one has twice as many.
        out: length of the vector.
        attention: a `SpatialAttention` after the first block.

    Raises:
        RecipeError: another size.
    """

    def __init__(self, size: int, channels: int, out: int, attention: bool = False) -> None:
        super().__init__()
        levels = halvings(size)
        blocks: list[nn.Module] = [ResidualBlock(3, channels, halve=True, begins_with_relu=False)]
        if attention:
            blocks.append(SpatialAttention(channels))
        for level in range(levels - 1):
            blocks.append(ResidualBlock(channels << level, channels << (level + 1), halve=True))
        last = channels << (levels - 1)
        blocks.append(ResidualBlock(last, last, halve=False))
        self.blocks = nn.Sequential(*blocks)
        self.out = orthogonal(nn.Linear(last, out))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, size, size] -> [B, out]."""
        vector: Tensor = self.out(self.blocks(images).sum(dim=(2, 3)))
        return vector


def halvings(size: int) -> int:
    """Number of halvings from a side of `size` to 4.

    Raises:
        RecipeError: not 4 times a power of 2, or below 16.
    """
    levels = (size // 4).bit_length() - 1
    if size < 16 or 4 << levels != size:
        raise RecipeError(f"the size must be 4 times a power of 2 and at least 16 (16, 32, 64, 128 ...), not {size}.")
    return levels

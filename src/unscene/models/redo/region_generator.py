"""ReDO's generator of one region: a drawing from a code and a mask (Chen, Artieres & Denoyer, 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.models.redo.residual_encoder import halvings
from unscene.models.redo.spatial_attention import SpatialAttention
from unscene.models.redo.spectral_convolution import orthogonal, spectral_convolution


class ConditionalNorm(nn.Module):
    """Instance normalisation with gain and shift predicted from a code, then ReLU.

    Args:
        channels: of the map.
        code: length of the code.
    """

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels, affine=False)
        self.gain, self.shift = orthogonal(nn.Linear(code, channels)), orthogonal(nn.Linear(code, channels))

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        gain, shift = self.gain(code)[:, :, None, None], self.shift(code)[:, :, None, None]
        normed: Tensor = self.norm(features) * gain + shift
        return normed.relu()


class DrawingBlock(nn.Module):
    """Double a map: two convolutions with conditional normalisation, the first one reading the mask, and a skip."""

    def __init__(self, in_channels: int, out_channels: int, code: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ConditionalNorm(in_channels, code), ConditionalNorm(out_channels, code)])
        self.first = spectral_convolution(in_channels + 1, out_channels, 3, bias=False)
        self.second = spectral_convolution(out_channels, out_channels, 3)
        self.skip = spectral_convolution(in_channels, out_channels, 1)

    def forward(self, features: Tensor, mask: Tensor, code: Tensor) -> Tensor:
        smaller = F.avg_pool2d(mask, mask.shape[3] // features.shape[3])
        residual = torch.cat([self.norms[0](features, code), smaller.to(features.dtype)], dim=1)
        residual = self.first(F.interpolate(residual, scale_factor=2.0))
        residual = self.second(self.norms[1](residual, code))
        doubled: Tensor = residual + self.skip(F.interpolate(features, scale_factor=2.0))
        return doubled


class RegionGenerator(nn.Module):
    """Draw a region in -1..1 from its code and mask, doubling a 4x4 map up to the image.

    Args:
        size: of the images, 4 times a power of 2.
        channels: of the largest map; the smallest has 2^(levels - 1) times as many.
        code: length of the code.
        attention: a `SpatialAttention` before the last doubling.
    """

    def __init__(self, size: int, channels: int, code: int, attention: bool = False) -> None:
        super().__init__()
        levels = halvings(size)
        widths = [channels << max(0, levels - 1 - level) for level in range(levels)]  # after each doubling
        self.smallest = channels << (levels - 1)
        self.start = orthogonal(nn.Linear(code, 16 * self.smallest))
        c_in = [self.smallest, *widths[:-1]]
        self.blocks = nn.ModuleList(DrawingBlock(*channels, code) for channels in zip(c_in, widths, strict=True))
        self.attention = SpatialAttention(c_in[-1]) if attention else nn.Identity()
        self.norm = ConditionalNorm(channels, code)
        self.to_image = spectral_convolution(channels + 1, 3, 3)

    def forward(self, mask: Tensor, code: Tensor) -> Tensor:
        """Mask [B, 1, size, size] and code [B, code] -> [B, 3, size, size], not yet multiplied by the mask."""
        features = self.start(code).unflatten(1, (self.smallest, 4, 4))
        for level, block in enumerate(self.blocks):
            if level == len(self.blocks) - 1:
                features = self.attention(features)
            features = block(features, mask, code)
        features = torch.cat([self.norm(features, code), mask.to(features.dtype)], dim=1)
        drawing: Tensor = self.to_image(features).tanh()
        return drawing

"""ReDO's generator of one region, its discriminator and code network, and what they share (Chen et al., 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from unscene.errors import RecipeError

GAIN = 0.8  # of the orthogonal initial weights (ReDO)


def halvings(size: int) -> int:
    """How often `size` is halved to reach 4; RecipeError if that is less than twice or impossible."""
    levels = (size // 4).bit_length() - 1
    if size < 16 or 4 << levels != size:
        raise RecipeError(f"the size must be 4 times a power of 2 and at least 16 (16, 32, 64, 128 ...), not {size}.")
    return levels


def orthogonal(layer: nn.Module) -> nn.Module:
    """Give a convolution or linear layer orthogonal weights of gain .8, leave its bias, and return it."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(layer.weight, GAIN)
    return layer


def spectral_convolution(c_in: int, c_out: int, kernel: int, bias: bool = True) -> nn.Module:
    """A convolution that keeps the size of the map, with spectral normalisation (Miyato et al., 2018)."""
    return spectral_norm(orthogonal(nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)))


class SpatialAttention(nn.Module):
    """x + gamma * attention(x) over pixels (Zhang et al., SAGAN, 2019), keys and values at half the resolution.

    Queries and keys have C / 8 channels, values C / 2; gamma starts at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, half = max(1, channels // 8), max(1, channels // 2)
        self.query = spectral_convolution(channels, inner, 1, bias=False)
        self.key = spectral_convolution(channels, inner, 1, bias=False)
        self.value = spectral_convolution(channels, half, 1, bias=False)
        self.out = spectral_convolution(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W], sides even -> the same shape."""
        query = self.query(features).flatten(2).transpose(1, 2)  # [B, HW, c]
        key = F.max_pool2d(self.key(features), 2).flatten(2).transpose(1, 2)
        value = F.max_pool2d(self.value(features), 2).flatten(2).transpose(1, 2)
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # SAGAN does not scale
        return features + self.gamma * self.out(attended.transpose(1, 2).unflatten(2, features.shape[2:]))


class ConditionalNorm(nn.Module):
    """Instance normalisation with gain and shift predicted from a code, then ReLU."""

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels, affine=False)
        self.gain, self.shift = (orthogonal(nn.Linear(latent_dim, channels)) for _ in range(2))

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        gain, shift = self.gain(code)[:, :, None, None], self.shift(code)[:, :, None, None]
        normed: Tensor = self.norm(features) * gain + shift
        return normed.relu()


class DrawingBlock(nn.Module):
    """Double a map: two convolutions with conditional normalisation, the first one reading the mask, and a skip."""

    def __init__(self, c_in: int, c_out: int, latent_dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(channels, latent_dim) for channels in (c_in, c_out))
        self.first = spectral_convolution(c_in + 1, c_out, 3, bias=False)
        self.second = spectral_convolution(c_out, c_out, 3)
        self.skip = spectral_convolution(c_in, c_out, 1)

    def forward(self, features: Tensor, mask: Tensor, code: Tensor) -> Tensor:
        smaller = F.avg_pool2d(mask, mask.shape[3] // features.shape[3])
        residual = torch.cat([self.norms[0](features, code), smaller.to(features.dtype)], dim=1)
        residual = self.first(F.interpolate(residual, scale_factor=2.0))
        residual = self.second(self.norms[1](residual, code))
        return residual + self.skip(F.interpolate(features, scale_factor=2.0))


class RegionGenerator(nn.Module):
    """Draw a region in -1..1 from its code and mask, doubling a 4x4 map up to the image.

    The largest map has `channels`, the smallest 2^(levels - 1) times as many. `attention` is before the last doubling.
    """

    def __init__(self, size: int, channels: int, latent_dim: int, attention: bool = False) -> None:
        super().__init__()
        levels = halvings(size)
        widths = [channels << max(0, levels - 1 - level) for level in range(levels)]  # after each doubling
        self.smallest = channels << (levels - 1)
        self.start = orthogonal(nn.Linear(latent_dim, 16 * self.smallest))
        c_in = [self.smallest, *widths[:-1]]
        self.blocks = nn.ModuleList(DrawingBlock(*pair, latent_dim) for pair in zip(c_in, widths, strict=True))
        self.attention = SpatialAttention(c_in[-1]) if attention else nn.Identity()
        self.norm = ConditionalNorm(channels, latent_dim)
        self.to_image = spectral_convolution(channels + 1, 3, 3)

    def forward(self, mask: Tensor, code: Tensor) -> Tensor:
        """Mask [B, 1, size, size] and code [B, D] -> [B, 3, size, size], not yet multiplied by the mask."""
        features = self.start(code).unflatten(1, (self.smallest, 4, 4))
        for level, block in enumerate(self.blocks):
            if level == len(self.blocks) - 1:
                features = self.attention(features)
            features = block(features, mask, code)
        features = torch.cat([self.norm(features, code), mask.to(features.dtype)], dim=1)
        return self.to_image(features).tanh()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip, 1x1 where the channels change; `halve` averages over 2x2 pixels.

    `starts_with_relu` is False in the first block, which reads an image.
    """

    def __init__(self, c_in: int, c_out: int, halve: bool, starts_with_relu: bool = True) -> None:
        super().__init__()
        self.halve, self.starts_with_relu = halve, starts_with_relu
        self.first = spectral_convolution(c_in, c_out, 3)
        self.second = spectral_convolution(c_out, c_out, 3)
        self.skip = spectral_convolution(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.first(features.relu() if self.starts_with_relu else features)
        residual = self.second(residual.relu())
        skip: Tensor = self.skip(F.avg_pool2d(features, 2) if self.halve else features)
        return (F.avg_pool2d(residual, 2) if self.halve else residual) + skip


class ResidualEncoder(nn.Module):
    """Discriminator and code network: residual blocks from an image down to 4x4, a sum over the pixels, a linear layer.

    The first block has `channels`, the next ones twice as many each. `attention` is after the first block.
    """

    def __init__(self, size: int, channels: int, out: int, attention: bool = False) -> None:
        super().__init__()
        levels = halvings(size)
        blocks: list[nn.Module] = [ResidualBlock(3, channels, halve=True, starts_with_relu=False)]
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
        return self.out(self.blocks(images).sum(dim=(2, 3)))

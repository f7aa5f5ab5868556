"""Self-attention over the pixels of a map (Zhang et al., SAGAN, 2019), with keys and values at half the resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.models.redo.spectral_convolution import spectral_convolution


class SpatialAttention(nn.Module):
    """x + gamma * attention(x); gamma starts at 0.

    Args:
        channels: C, 8 or more; queries and keys have C / 8 channels, values C / 2.
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
        result: Tensor = features + self.gamma * self.out(attended.transpose(1, 2).unflatten(2, features.shape[2:]))
        return result

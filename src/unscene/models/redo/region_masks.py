"""Masks of K regions from an image: residual blocks and a pyramid of pooled maps (ReDO, after Zhao et al., PSPNet)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.models.redo.networks import orthogonal
from unscene.ops.dispatch import at_least_float32

PYRAMID = (1, 2, 3, 6)  # cells on a side


def _normed(*layers: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.InstanceNorm2d(channels, affine=True), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            _normed(orthogonal(nn.Conv2d(channels, channels, 3, padding=1, bias=False)), channels=channels),
            orthogonal(nn.Conv2d(channels, channels, 3, padding=1)),
        )
        self.after = _normed(channels=channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.after(self.inside(features) + features)


class RegionMasks(nn.Module):
    """Log masks of K regions that sum to 1 at every pixel; of two regions, the second is the first one's complement.

    `channels` is a multiple of 4 and counts those at a quarter of the resolution.
    """

    def __init__(self, num_slots: int, channels: int, blocks: int, temperature: float = 1.0) -> None:
        super().__init__()
        half, quarter, pooled = channels // 2, channels // 4, channels + len(PYRAMID)
        self.temperature = temperature
        self.down = nn.Sequential(
            nn.ReflectionPad2d(3),
            _normed(orthogonal(nn.Conv2d(3, quarter, 7, bias=False)), channels=quarter),
            _normed(orthogonal(nn.Conv2d(quarter, half, 3, 2, 1, bias=False)), channels=half),
            _normed(orthogonal(nn.Conv2d(half, channels, 3, 2, 1, bias=False)), channels=channels),
            *(_Residual(channels) for _ in range(blocks)),
        )
        self.pooled = nn.ModuleList(orthogonal(nn.Conv2d(channels, 1, 1)) for _ in PYRAMID)
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            _normed(orthogonal(nn.Conv2d(pooled, pooled // 2, 3, padding=1, bias=False)), channels=pooled // 2),
            nn.Upsample(scale_factor=2),
            _normed(orthogonal(nn.Conv2d(pooled // 2, pooled // 4, 3, padding=1, bias=False)), channels=pooled // 4),
            nn.ReflectionPad2d(3),
            orthogonal(nn.Conv2d(pooled // 4, 1 if num_slots == 2 else num_slots, 7)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1, sides multiples of 4 -> [B, K, 1, H, W] float32 log masks."""
        features = self.down(images)
        size = features.shape[2:]
        cells = [
            F.interpolate(layer(F.adaptive_avg_pool2d(features, side)), size=size, mode="bilinear")
            for side, layer in zip(PYRAMID, self.pooled, strict=True)
        ]
        logits = at_least_float32(self.up(torch.cat([features, *cells], dim=1))) / self.temperature
        if logits.shape[1] == 1:
            return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=1)
        return logits.log_softmax(dim=1).unsqueeze(2)

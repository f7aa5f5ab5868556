"""Sub-pixel convolution (Shi et al., 2016): a 1x1 convolution to factor x factor pixels for each pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unscene.ops.dispatch import use_plain


class SubpixelConv2d(nn.Conv2d):
    """pixel_shuffle(conv1x1(x), factor); on a CPU one matrix product and one copy, and a channels-last result."""

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

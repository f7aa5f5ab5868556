"""Convolutions with spectral normalisation (Miyato et al., 2018) and orthogonal initial weights."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

GAIN = 0.8  # of the orthogonal initial weights (ReDO)


def orthogonal(layer: nn.Module) -> nn.Module:
    """Give a convolution or linear layer orthogonal weights of gain .8, leave its bias, and return it."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(layer.weight, GAIN)
    return layer


def spectral_convolution(in_channels: int, out_channels: int, kernel: int, bias: bool = True) -> nn.Module:
    """A convolution that keeps the size of the map; its weight is divided by its largest singular value."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    convolution: nn.Module = spectral_norm(orthogonal(layer))
    return convolution

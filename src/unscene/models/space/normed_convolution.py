"""A convolution, CELU, and group normalisation (Wu & He, 2018): the layer that SPACE's networks are made of."""

from __future__ import annotations

from torch import nn


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
    return nn.Sequential(convolution, nn.CELU(), group_norm(out_channels, norm))


def group_norm(channels: int, norm: bool = True) -> nn.Module:
    """At most 16 groups of four or more channels each, as even as they divide; or, without `norm`, nothing."""
    if not norm:
        return nn.Identity()
    groups = max(1, min(16, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)

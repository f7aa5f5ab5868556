"""Multilayer perceptrons, and initial weights for layers before a ReLU."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def mlp(*widths: int) -> list[nn.Module]:
    """Linear layers from each width to the next, each followed by a ReLU."""
    return [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]


def kaiming_init_(*layers: nn.Module) -> None:
    """Initialise layers before a ReLU so that the signal keeps its variance through them (He et al., 2015).

    PyTorch's default keeps a sixth of the variance a layer: through the eight layers of encoder and decoder a latent
    reaches the colours a thousandth as strong, and they are learnt late.
    """
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

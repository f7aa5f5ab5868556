"""Layers that the references share, for one image: weights by the name under which a model saves them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def layers_of(part: str, weights: Weights) -> list[str]:
    """The names of the layers within a part of the model, in order."""
    return [
        name.removesuffix(".weight") for name in weights if name.startswith(f"{part}.") and name.endswith(".weight")
    ]


def convolve(features: Tensor, name: str, weights: Weights, stride: int = 1, padding: int = 0) -> Tensor:
    """A convolution with bias. [C, H, W] -> [C', H', W']."""
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.conv2d(features[None], kernel, bias, stride=stride, padding=padding)[0]


def dense(vector: Tensor, name: str, weights: Weights) -> Tensor:
    """W v + b."""
    return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]


def lstm_cell(read: Tensor, state: tuple[Tensor, Tensor], name: str, weights: Weights) -> tuple[Tensor, Tensor]:
    """One step of an LSTM (Hochreiter & Schmidhuber, 1997; with forget gates): (h, c) -> (h', c')."""
    hidden, cell = state
    gates = weights[f"{name}.weight_ih"] @ read + weights[f"{name}.bias_ih"]
    gates = gates + weights[f"{name}.weight_hh"] @ hidden + weights[f"{name}.bias_hh"]
    entering, kept, candidate, shown = gates.chunk(4)
    cell = torch.sigmoid(kept) * cell + torch.sigmoid(entering) * torch.tanh(candidate)
    return torch.sigmoid(shown) * torch.tanh(cell), cell


def tiled(latent: Tensor, height: int, width: int) -> Tensor:
    """A latent at every cell of a grid, above the cell's y and x in -1..1. [D] -> [D + 2, height, width]."""
    rows = []
    for row in range(height):
        cells = []
        for column in range(width):
            y_x = latent.new_tensor([-1 + 2 * row / (height - 1), -1 + 2 * column / (width - 1)])
            cells.append(torch.cat([latent, y_x]))
        rows.append(torch.stack(cells, dim=1))
    return torch.stack(rows, dim=1)

"""Batch normalisation in a network that one forward applies several times, as a recurrent attention does."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BatchNormPerPass(nn.Module):
    """nn.BatchNorm2d with one set of running statistics for each pass; weight and bias are shared.

    Training computes what one shared nn.BatchNorm2d computes, bit for bit: it normalises by the batch. Evaluation
    differs: the passes read different inputs, so the average of their statistics fits none of them.

    Args:
        layer: gives weight, bias and settings; its running statistics are the first ones of every pass.
        passes: how often a forward applies the network.
    """

    def __init__(self, layer: nn.BatchNorm2d, passes: int) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.passes = nn.ModuleList(
            nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum, affine=False) for _ in range(passes)
        )
        for norm in self.passes:
            norm.load_state_dict(dict(layer.named_buffers()))
        self.index = 0

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same axes, by the statistics of the pass that `select_pass` named last."""
        affine: dict[str, Tensor] = {"weight": self.weight, "bias": self.bias}
        normalised: Tensor = torch.func.functional_call(self.passes[self.index], affine, (features,))
        return normalised


def batch_norm_per_pass(network: nn.Module, passes: int) -> nn.Module:
    """Replace every nn.BatchNorm2d inside a network by a `BatchNormPerPass`, in place, and return the network."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.BatchNorm2d:
                setattr(parent, name, BatchNormPerPass(layer, passes))
    return network


def select_pass(network: nn.Module, index: int) -> None:
    """Let every `BatchNormPerPass` of a network use the statistics of pass `index`, counted from 0."""
    for module in network.modules():
        if isinstance(module, BatchNormPerPass):
            module.index = index

"""Group normalisation (Wu & He, 2018) followed by a ReLU, in one pass where a CPU allows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.ops.dispatch import compiled_module, use_plain


class GroupNormReLU(nn.Module):
    """relu(GroupNorm(x)), with `nn.GroupNorm`'s parameters by their names.

    On a CPU with numba, bfloat16 channels-last maps are normalised by a compiled loop (`benchmarks/README.md` says how
    much faster), float32 inside and rounded once. Everything else is PyTorch's own.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, features: Tensor) -> Tensor:
        """[S, C, H, W] -> [S, C, H, W]; differentiable once."""
        compiled = compiled_module("unscene.ops.group_norm_numba") if _fits_compiled(features) else None
        if compiled is None:
            return F.group_norm(features, self.num_groups, self.weight, self.bias, self.eps).relu_()
        return compiled.GroupNormReLUFunction.apply(
            features, self.weight.float(), self.bias.float(), self.num_groups, self.eps
        )


def _fits_compiled(features: Tensor) -> bool:
    return (
        not use_plain()
        and features.device.type == "cpu"
        and features.dtype == torch.bfloat16
        and features.is_contiguous(memory_format=torch.channels_last)
        and features.numel() > 0
    )

"""CELU (Barron, 2017) with alpha 1, by vectorised exponentials: PyTorch's takes one number after another on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.ops.plain import use_plain


class CELU(nn.Module):
    """max(0, x) + min(0, exp(x) - 1), of any shape; differentiable once."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or use_plain():
            return F.celu(x)
        y: Tensor = _CELU.apply(x)
        return y


class _CELU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_max(0).exp_().sub_(1)
        torch.maximum(y, x, out=y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        grad_x: Tensor = y.clamp_max(0).add_(1).mul_(grad_y)
        return grad_x

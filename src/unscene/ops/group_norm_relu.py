"""Group normalisation (Wu & He, 2018) followed by a ReLU, in one pass where a CPU allows it."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.ops.plain import use_plain
from unscene.ops.threads import on_all_threads


class GroupNormReLU(nn.Module):
    """relu(GroupNorm(x)), with `nn.GroupNorm`'s parameters by their names.

    On a CPU with numba, bfloat16 channels-last maps are normalised by a compiled loop (`benchmarks/README.md` says how
    much quicker), float32 inside and rounded once. Everything else is PyTorch's own.

    Args:
        num_groups: G, which divides the channels.
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, features: Tensor) -> Tensor:
        """[S, C, H, W] -> [S, C, H, W]; differentiable once."""
        if _has_fast_body(features):
            answer: Tensor = _GroupNormReLU.apply(
                features, self.weight.float(), self.bias.float(), self.num_groups, self.eps
            )
            return answer
        return F.group_norm(features, self.num_groups, self.weight, self.bias, self.eps).relu_()

    def extra_repr(self) -> str:
        """Groups and channels, for printing."""
        return f"{self.num_groups}, {len(self.weight)}"


@cache
def compiled_group_norm() -> ModuleType | None:
    """The compiled loops, if numba is installed."""
    try:
        from unscene.ops import group_norm_numba as compiled
    except ImportError:
        return None
    return compiled


def _has_fast_body(features: Tensor) -> bool:
    return (
        not use_plain()
        and features.device.type == "cpu"
        and features.dtype == torch.bfloat16
        and features.is_contiguous(memory_format=torch.channels_last)
        and features.numel() > 0
        and compiled_group_norm() is not None
    )


class _GroupNormReLU(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        compiled = compiled_group_norm()
        assert compiled is not None
        answer = torch.empty_like(features)
        mean, scale = weight.new_empty(len(features), groups), weight.new_empty(len(features), groups)
        x, y, m, s = _bits(features), _bits(answer), mean.numpy(), scale.numpy()
        w, b = weight.numpy(), bias.numpy()

        def part(start: int, stop: int) -> None:
            here = slice(start, stop)
            compiled.forward(x[here], w, b, eps, y[here], m[here], s[here])

        on_all_threads(part, len(features))
        ctx.save_for_backward(features, answer, weight, mean, scale)
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        features, answer, weight, mean, scale = ctx.saved_tensors
        compiled = compiled_group_norm()
        assert compiled is not None
        grad_features = torch.empty_like(features)
        grad_weight, grad_bias = (weight.new_empty(len(features), len(weight)) for _ in range(2))
        g, x, y, grad_x = (_bits(each) for each in (grad.to(features.dtype), features, answer, grad_features))
        w, m, s, grad_w, grad_b = (each.numpy() for each in (weight, mean, scale, grad_weight, grad_bias))

        def part(start: int, stop: int) -> None:
            here = slice(start, stop)
            compiled.backward(g[here], x[here], y[here], w, m[here], s[here], grad_x[here], grad_w[here], grad_b[here])

        on_all_threads(part, len(features))
        return grad_features, grad_weight.sum(dim=0), grad_bias.sum(dim=0), None, None


def _bits(maps: Tensor) -> Any:
    """[S, C, H, W] bfloat16 -> [S, H * W, C] uint16, the same memory where the channels are last."""
    return maps.detach().permute(0, 2, 3, 1).contiguous().flatten(1, 2).view(torch.uint16).numpy()

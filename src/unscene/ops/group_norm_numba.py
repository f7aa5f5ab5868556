"""Group normalisation and ReLU of channels-last bfloat16 maps on a CPU, compiled by numba, with their gradients.

Without numba this module cannot be imported.

A sample's map is read twice, the second time from the cache, and sums are float32. NumPy has no bfloat16: its bits are
the upper half of a float32's, and are passed as uint16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.ops.numba_jit import compiled, on_all_threads


@compiled
def _widened(bits: Any) -> Any:
    """float32 of a bfloat16's bits."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled
def _rounded(value: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32, of two the even one; of NaN some NaN's."""
    bits = np.float32(value).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(0x7FC0 if value != value else nearest)


@compiled
def forward(x: Any, weight: Any, bias: Any, eps: float, y: Any, mean: Any, scale: Any) -> None:
    """Write y = relu(weight (x - mean) scale + bias), with each group's mean and scale = 1 / sqrt(variance + eps).

    Of P pixels: x and y [S, P, C] are bits, weight and bias [C] and mean and scale [S, G] are float32.
    """
    size, pixels, channels = x.shape
    group = channels // mean.shape[1]
    first, sums, squares, factor, offset = np.empty((5, channels), np.float32)
    for s in range(size):
        for c in range(channels):
            first[c] = _widened(x[s, 0, c - c % group])  # sums about a value of the group: nothing is lost to its mean
            sums[c] = squares[c] = 0
        for p in range(pixels):
            for c in range(channels):
                value = _widened(x[s, p, c]) - first[c]
                sums[c] += value
                squares[c] += value * value
        for g in range(mean.shape[1]):
            total, total_square = 0.0, 0.0
            for c in range(g * group, (g + 1) * group):
                total += sums[c]
                total_square += squares[c]
            distance = total / (group * pixels)
            variance = max(total_square / (group * pixels) - distance * distance, 0.0)
            mean[s, g] = first[g * group] + distance
            scale[s, g] = 1 / np.sqrt(variance + eps)
            for c in range(g * group, (g + 1) * group):
                factor[c] = weight[c] * scale[s, g]
                offset[c] = bias[c] - mean[s, g] * factor[c]
        for p in range(pixels):
            for c in range(channels):
                value = _widened(x[s, p, c]) * factor[c] + offset[c]
                y[s, p, c] = _rounded(value if not value < 0 else np.float32(0))


@compiled
def backward(
    grad_y: Any, x: Any, y: Any, weight: Any, mean: Any, scale: Any, grad_x: Any, grad_weight: Any, grad_bias: Any
) -> None:
    """Write the gradients of `forward`: grad_x [S, P, C] bits, and grad_weight and grad_bias [S, C], a row a sample.

    With n = (x - mean) scale and d = weight * grad_y where y > 0, grad_x = scale (d - mean(d) - n mean(d n)), the means
    over the group's pixels and channels.
    """
    size, pixels, channels = x.shape
    group = channels // mean.shape[1]
    centre, sums, products, factor, slope, offset = np.empty((6, channels), np.float32)
    for s in range(size):
        for c in range(channels):
            centre[c] = mean[s, c // group]
            sums[c] = products[c] = 0
        for p in range(pixels):
            for c in range(channels):
                through = _widened(grad_y[s, p, c]) if _widened(y[s, p, c]) > 0 else np.float32(0)
                sums[c] += through
                products[c] += through * (_widened(x[s, p, c]) - centre[c])
        for g in range(mean.shape[1]):
            mean_d, mean_dn = 0.0, 0.0
            for c in range(g * group, (g + 1) * group):
                grad_bias[s, c] = sums[c]
                grad_weight[s, c] = products[c] * scale[s, g]
                mean_d += weight[c] * grad_bias[s, c]
                mean_dn += weight[c] * grad_weight[s, c]
            mean_d /= group * pixels
            mean_dn /= group * pixels
            for c in range(g * group, (g + 1) * group):
                factor[c] = weight[c] * scale[s, g]
                slope[c] = -mean_dn * scale[s, g] * scale[s, g]
                offset[c] = -mean_d * scale[s, g]
        for p in range(pixels):
            for c in range(channels):
                through = _widened(grad_y[s, p, c]) if _widened(y[s, p, c]) > 0 else np.float32(0)
                distance = _widened(x[s, p, c]) - centre[c]
                grad_x[s, p, c] = _rounded(factor[c] * through + slope[c] * distance + offset[c])


class GroupNormReLUFunction(Function):
    """Normalise features [S, C, H, W] with weight and bias [C]; the samples are shared among the threads."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        normalised = torch.empty_like(features)
        mean, scale = weight.new_empty(len(features), groups), weight.new_empty(len(features), groups)
        x, y, m, s = _bits(features), _bits(normalised), mean.numpy(), scale.numpy()
        w, b = weight.numpy(), bias.numpy()

        def normalise(start: int, stop: int) -> None:
            rows = slice(start, stop)
            forward(x[rows], w, b, eps, y[rows], m[rows], s[rows])

        on_all_threads(normalise, len(features))
        ctx.save_for_backward(features, normalised, weight, mean, scale)
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        features, normalised, weight, mean, scale = ctx.saved_tensors
        grad_features = torch.empty_like(features)
        grad_weight, grad_bias = (weight.new_empty(len(features), len(weight)) for _ in range(2))
        g, x, y, grad_x = (_bits(maps) for maps in (grad.to(features.dtype), features, normalised, grad_features))
        w, m, s, grad_w, grad_b = (values.numpy() for values in (weight, mean, scale, grad_weight, grad_bias))

        def differentiate(start: int, stop: int) -> None:
            rows = slice(start, stop)
            backward(g[rows], x[rows], y[rows], w, m[rows], s[rows], grad_x[rows], grad_w[rows], grad_b[rows])

        on_all_threads(differentiate, len(features))
        return grad_features, grad_weight.sum(dim=0), grad_bias.sum(dim=0), None, None


def _bits(maps: Tensor) -> Any:
    """[S, C, H, W] bfloat16 -> [S, H * W, C] uint16, the same memory where the channels are last."""
    return maps.detach().permute(0, 2, 3, 1).contiguous().flatten(1, 2).view(torch.uint16).numpy()

"""Convolutions each followed by a ReLU: on a CPU without the passes over memory that the ReLU costs by itself.

Memory bounds such layers as much as products do. oneDNN applies the ReLU while it writes a convolution's result. No
other operation reads the gradient between two layers, so the ReLU's gradient is written into it. The bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.errors import RecipeError
from unscene.ops.plain import use_plain


def relu_convolutions(features: Tensor, convolutions: Iterable[nn.Module]) -> Tensor:
    """Return relu(conv_n(... relu(conv_1(features)))), differentiable once; without a convolution the features.

    Args:
        features: [B, C, H, W]; the quicker way is taken on a CPU for channels-last float32 or bfloat16 features.
        convolutions: of one group and stride 1, padded by zeros or not at all.

    Raises:
        RecipeError: a convolution of another kind.
    """
    layers = [_checked_convolution(layer) for layer in convolutions]
    if not layers or not _has_fast_body(features):
        for layer in layers:
            features = layer(features).relu_()
        return features
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else features.dtype
    forms = tuple((list(layer.padding), list(layer.dilation)) for layer in layers)
    weights = [layer.weight.to(dtype, memory_format=torch.channels_last) for layer in layers]
    biases = [None if layer.bias is None else layer.bias.to(dtype) for layer in layers]
    answer: Tensor = _ReLUConvolutions.apply(forms, features.to(dtype), *weights, *biases)
    return answer


def _checked_convolution(layer: nn.Module) -> nn.Conv2d:
    if (
        isinstance(layer, nn.Conv2d)
        and (layer.groups, layer.stride, layer.padding_mode) == (1, (1, 1), "zeros")
        and not isinstance(layer.padding, str)
    ):
        return layer
    raise RecipeError(f"only a 2-D convolution of one group and stride 1, padded by zeros, is taken, not {layer}.")


def _has_fast_body(features: Tensor) -> bool:
    return (
        not use_plain()
        and features.device.type == "cpu"
        and features.dtype in (torch.float32, torch.bfloat16)
        and features.is_contiguous(memory_format=torch.channels_last)
        and features.numel() > 0
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


class _ReLUConvolutions(Function):
    @staticmethod
    def forward(ctx: Any, forms: tuple, features: Tensor, *parameters: Tensor | None) -> Tensor:
        weights, biases = parameters[: len(forms)], parameters[len(forms) :]
        maps = [features]
        for (padding, dilation), weight, bias in zip(forms, weights, biases, strict=True):
            convolve = torch.ops.mkldnn._convolution_pointwise
            maps.append(convolve(maps[-1], weight, bias, padding, [1, 1], dilation, 1, "relu", [], ""))
        ctx.save_for_backward(*maps, *weights)
        ctx.forms, ctx.bias_sizes = forms, [None if bias is None else list(bias.shape) for bias in biases]
        return maps[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        forms = ctx.forms
        maps, weights = ctx.saved_tensors[: len(forms) + 1], ctx.saved_tensors[len(forms) + 1 :]
        grad_weights: list[Tensor | None] = [None] * len(forms)
        grad_biases: list[Tensor | None] = [None] * len(forms)
        for layer in reversed(range(len(forms))):
            relu_backward, output = torch.ops.aten.threshold_backward, maps[layer + 1]
            if layer == len(forms) - 1:  # another operation may still read this gradient
                grad = relu_backward(grad, output, 0)
            else:
                grad = relu_backward.grad_input(grad, output, 0, grad_input=grad)
            padding, dilation = forms[layer]
            size = ctx.bias_sizes[layer]
            needed = [layer > 0 or ctx.needs_input_grad[1], True, size is not None]
            grad, grad_weights[layer], grad_biases[layer] = torch.ops.aten.convolution_backward(
                grad, maps[layer], weights[layer], size, [1, 1], padding, dilation, False, [0, 0], 1, needed
            )
        return None, grad if ctx.needs_input_grad[1] else None, *grad_weights, *grad_biases

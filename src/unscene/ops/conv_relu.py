"""Convolutions each followed by a ReLU: on a CPU without the passes over memory that the ReLU costs by itself.

Such layers are bound by the memory as much as by the products. oneDNN applies the ReLU while it writes a convolution's
answer; and between two layers the gradient is nobody else's, so the ReLU's is written into it. The bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.errors import RecipeError


def relu_convolutions(features: Tensor, convolutions: Iterable[nn.Module]) -> Tensor:
    """Return relu(conv_n(... relu(conv_1(features)))), differentiable once; without a convolution the features.

    Args:
        features: [B, C, H, W]; the quicker way is taken on a CPU for channels-last float32 or bfloat16 features.
        convolutions: of one group and stride 1, padded by zeros or not at all.

    Raises:
        RecipeError: a convolution of another kind.
    """
    layers = [_plain_convolution(each) for each in convolutions]
    if not layers or not _has_quicker_way(features):
        for each in layers:
            features = each(features).relu_()
        return features
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else features.dtype
    forms = tuple((list(each.padding), list(each.dilation)) for each in layers)
    weights = [each.weight.to(dtype, memory_format=torch.channels_last) for each in layers]
    biases = [None if each.bias is None else each.bias.to(dtype) for each in layers]
    answer: Tensor = _ReLUConvolutions.apply(forms, features.to(dtype), *weights, *biases)
    return answer


def _plain_convolution(layer: nn.Module) -> nn.Conv2d:
    if (
        isinstance(layer, nn.Conv2d)
        and (layer.groups, layer.stride, layer.padding_mode) == (1, (1, 1), "zeros")
        and not isinstance(layer.padding, str)
    ):
        return layer
    raise RecipeError(f"only a 2-D convolution of one group and stride 1, padded by zeros, is taken, not {layer}.")


def _has_quicker_way(features: Tensor) -> bool:
    return (
        features.device.type == "cpu"
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
            each = torch.ops.mkldnn._convolution_pointwise(
                maps[-1], weight, bias, padding, [1, 1], dilation, 1, "relu", [], ""
            )
            maps.append(each)
        ctx.save_for_backward(*maps, *weights)
        ctx.forms, ctx.bias_sizes = forms, [None if bias is None else list(bias.shape) for bias in biases]
        return maps[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        forms = ctx.forms
        maps, weights = ctx.saved_tensors[: len(forms) + 1], ctx.saved_tensors[len(forms) + 1 :]
        of_weights: list[Tensor | None] = [None] * len(forms)
        of_biases: list[Tensor | None] = [None] * len(forms)
        for layer in reversed(range(len(forms))):
            of_relu, after = torch.ops.aten.threshold_backward, maps[layer + 1]
            if layer == len(forms) - 1:  # somebody else's, who may look at it again
                gradient = of_relu(gradient, after, 0)
            else:
                gradient = of_relu.grad_input(gradient, after, 0, grad_input=gradient)
            padding, dilation = forms[layer]
            size = ctx.bias_sizes[layer]
            wanted = [layer > 0 or ctx.needs_input_grad[1], True, size is not None]
            gradient, of_weights[layer], of_biases[layer] = torch.ops.aten.convolution_backward(
                gradient, maps[layer], weights[layer], size, [1, 1], padding, dilation, False, [0, 0], 1, wanted
            )
        return None, gradient if ctx.needs_input_grad[1] else None, *of_weights, *of_biases

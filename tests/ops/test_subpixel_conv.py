"""The sub-pixel convolution: the fast body against PyTorch's, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from unscene.ops.subpixel_conv import SubpixelConv2d


def values_and_gradients(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_subpixel_conv_is_a_convolution_and_a_pixel_shuffle(factor, monkeypatch):
    torch.manual_seed(0)
    layer, maps = SubpixelConv2d(5, 3, factor), torch.randn(2, 5, 3, 4)
    fast = values_and_gradients(layer, maps)
    assert fast[0].shape == (2, 3, 3 * factor, 4 * factor)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert_close(fast, values_and_gradients(layer, maps), rtol=1e-4, atol=1e-5)
    assert_close(fast[0], F.pixel_shuffle(F.conv2d(maps, layer.weight, layer.bias), factor), rtol=1e-4, atol=1e-5)

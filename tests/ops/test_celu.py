"""CELU and the sub-pixel convolution: the fast bodies against PyTorch's, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from unscene.ops.celu import CELU
from unscene.ops.subpixel_conv import SubpixelConv2d


def values_and_gradients(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("values", [torch.linspace(-9, 9, 101), torch.tensor([0.0, -200.0, 1e4]), torch.zeros(0)])
def test_celu_is_pytorchs(values, monkeypatch):
    fast = values_and_gradients(CELU(), values)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    plain = values_and_gradients(CELU(), values)
    assert_close(fast, plain, rtol=1e-5, atol=2e-7)
    assert_close(plain[0], F.celu(values))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_subpixel_convolution_is_a_convolution_and_a_shuffle(factor, monkeypatch):
    torch.manual_seed(0)
    layer, maps = SubpixelConv2d(5, 3, factor), torch.randn(2, 5, 3, 4)
    fast = values_and_gradients(layer, maps)
    assert fast[0].shape == (2, 3, 3 * factor, 4 * factor)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert_close(fast, values_and_gradients(layer, maps), rtol=1e-4, atol=1e-5)
    assert_close(fast[0], F.pixel_shuffle(F.conv2d(maps, layer.weight, layer.bias), factor), rtol=1e-4, atol=1e-5)

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.rmonet.resnet_fpn import ResNetFPN
from unscene.models.rmonet.settings import BackboneSettings
from unscene.ops.convolutions import (
    FEW_PIXELS,
    SmallMapConv2d,
    SubpixelConv2d,
    convolve_doubled,
    convolve_doubled_and_skip,
    convolve_tiled,
)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (4, 4), (5, 3), (9, 8)])
def test_small_maps_are_convolved_and_so_are_their_gradients(size, stride, layout):
    """Both sides of the limit, even and odd sides: 9 x 8 has more than 16 outputs at stride 1 and 20 at stride 2."""
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 5, 3, stride, 1, bias=False).double()
    ours = SmallMapConv2d(plain)
    features = torch.randn(3, 6, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    expected = plain(features)
    weights = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), (features, plain.weight))
    output = ours(features)
    assert_close(output, expected)
    for mine, theirs in zip(
        torch.autograd.grad((output * weights).sum(), (features, ours.weight)), expected_gradients, strict=True
    ):
        assert_close(mine, theirs)


def test_only_small_outputs_are_a_matrix_product(monkeypatch):
    """The limit is in the output's pixels: 4 x 4 is multiplied, 5 x 4 convolved."""
    convolved = []
    monkeypatch.setattr(
        torch.nn.functional, "conv2d", lambda *a, **k: convolved.append(a[0].shape) or torch.conv2d(*a, **k)
    )
    ours = SmallMapConv2d(nn.Conv2d(2, 2, 3, 1, 1, bias=False))
    assert FEW_PIXELS == 16
    for height in (4, 5):
        ours(torch.zeros(1, 2, height, 4))
    assert convolved == [torch.Size([1, 2, 5, 4])]


def test_weights_keep_their_names_and_initial_values():
    """A backbone's weights load into torchvision's names, and start from the same distribution."""
    torch.manual_seed(0)
    names = dict(ResNetFPN(BackboneSettings(width=8, fpn_channels=8)).named_parameters())
    assert names["layer4.1.conv2.weight"].shape == (64, 64, 3, 3)
    assert names["layer4.0.conv1.weight"].std().item() == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.05
    )  # kaiming, fan out


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, bias=False),
    ],
)
def test_other_convolutions_are_refused(convolution):
    with pytest.raises(RecipeError, match="padded 3x3 convolution without bias"):
        SmallMapConv2d(convolution)


def test_the_plain_body_of_small_maps_is_the_convolution(monkeypatch):
    plain, features = nn.Conv2d(6, 5, 3, padding=1, bias=False), torch.randn(3, 6, 2, 2)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert torch.equal(SmallMapConv2d(plain)(features), plain(features))


def test_tiled_bodies_agree(monkeypatch):
    torch.manual_seed(0)
    inputs = torch.randn(3, 5), torch.randn(1, 2, 6, 7), torch.randn(4, 7, 3, 3), torch.randn(4)
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    weights = torch.randn(3, 4, 4, 5, dtype=torch.float64)
    results = []
    for plain in ("0", "1"):
        monkeypatch.setenv("UNSCENE_PLAIN", plain)
        result = convolve_tiled(*inputs)
        results.append((result, *torch.autograd.grad((result * weights).sum(), inputs)))
    assert_close(*results)


def test_tiled_by_hand():  # kernel of ones: nine times the latent, and the sum of nine coordinates
    result = convolve_tiled(torch.tensor([[2.0]]), torch.arange(9.0).view(1, 1, 3, 3), torch.ones(1, 2, 3, 3), None)
    assert result.item() == 9 * 2 + sum(range(9))


def doubled_then_convolved(coarse, weight, bias=None):
    doubled = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return F.conv2d(doubled, weight, bias, padding=1)


def test_doubled_cell_by_hand():  # of a 2x2 map of the same cell, x pixel misses the kernel's row and column beyond it
    weight = torch.arange(9.0).view(1, 1, 3, 3)
    expected = torch.tensor([[4 + 5 + 7 + 8, 3 + 4 + 6 + 7], [1 + 2 + 4 + 5, 0 + 1 + 3 + 4]])
    assert_close(convolve_doubled(torch.full((1, 1, 1, 1), 2.0), weight)[0, 0], 2.0 * expected)


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_doubled_is_the_convolution_of_the_doubled_map(slots, c_in, c_out, height, width):
    torch.manual_seed(slots + c_in + c_out + height + width)
    coarse = torch.randn(slots, c_in, height, width, dtype=torch.float64)
    weight = torch.randn(c_out, c_in, 3, 3, dtype=torch.float64)
    assert_close(convolve_doubled(coarse, weight), doubled_then_convolved(coarse, weight))
    bias = torch.randn(c_out, dtype=torch.float64)
    assert_close(convolve_doubled(coarse, weight, bias), doubled_then_convolved(coarse, weight, bias))


def test_gradients_are_those_of_the_convolution_of_the_doubled_map():
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 3, 2), torch.randn(4, 3, 3, 3)
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    weights = torch.randn(2, 4, 6, 4, dtype=torch.float64)
    ours = torch.autograd.grad((convolve_doubled(*inputs) * weights).sum(), inputs)
    assert_close(ours, torch.autograd.grad((doubled_then_convolved(*inputs) * weights).sum(), inputs))


def test_memory_layout_is_kept_in_training():
    coarse = torch.randn(2, 8, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):  # a float32 bias must not turn the map into float32
        result = convolve_doubled(coarse, torch.randn(8, 8, 3, 3), torch.randn(8))
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_other_kernels_and_channels_are_refused():
    with pytest.raises(ShapeError, match="weight"):
        convolve_doubled(torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 5, 5))
    with pytest.raises(ShapeError, match="weight"):
        convolve_doubled(torch.zeros(1, 2, 4, 4), torch.zeros(3, 1, 3, 3))
    with pytest.raises(ShapeError, match="coarse"):
        convolve_doubled(torch.zeros(2, 4, 4), torch.zeros(3, 2, 3, 3))
    with pytest.raises(ShapeError, match="bias"):
        convolve_doubled(torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3), torch.zeros(2))


def test_doubled_bodies_agree(monkeypatch):
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 3, 2), torch.randn(2, 5, 6, 4), torch.randn(4, 8, 3, 3), torch.randn(4)
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    weights, results = torch.randn(2, 4, 6, 4, dtype=torch.float64), []
    for plain in ("0", "1"):
        monkeypatch.setenv("UNSCENE_PLAIN", plain)
        result = convolve_doubled_and_skip(*inputs)
        results.append((result, *torch.autograd.grad((result * weights).sum(), inputs)))
    assert_close(*results)


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

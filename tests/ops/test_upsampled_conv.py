from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.ops.upsampled_conv import convolve_doubled, convolve_doubled_and_skip


def drawn_and_convolved(coarse, weight, bias=None):
    doubled = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return F.conv2d(doubled, weight, bias, padding=1)


def test_one_cell_by_hand():  # of a 2x2 map of the same cell, each pixel misses the kernel's row and column beyond it
    weight = torch.arange(9.0).view(1, 1, 3, 3)
    expected = torch.tensor([[4 + 5 + 7 + 8, 3 + 4 + 6 + 7], [1 + 2 + 4 + 5, 0 + 1 + 3 + 4]])
    assert_close(convolve_doubled(torch.full((1, 1, 1, 1), 2.0), weight)[0, 0], 2.0 * expected)


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_it_is_the_convolution_of_the_doubled_map(slots, before, after, height, width):
    torch.manual_seed(slots + before + after + height + width)
    coarse = torch.randn(slots, before, height, width, dtype=torch.float64)
    weight = torch.randn(after, before, 3, 3, dtype=torch.float64)
    assert_close(convolve_doubled(coarse, weight), drawn_and_convolved(coarse, weight))
    bias = torch.randn(after, dtype=torch.float64)
    assert_close(convolve_doubled(coarse, weight, bias), drawn_and_convolved(coarse, weight, bias))


def test_gradients_are_those_of_the_convolution_of_the_doubled_map():
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 3, 2), torch.randn(4, 3, 3, 3)
    inputs = tuple(each.double().requires_grad_() for each in inputs)
    weights = torch.randn(2, 4, 6, 4, dtype=torch.float64)
    ours = torch.autograd.grad((convolve_doubled(*inputs) * weights).sum(), inputs)
    assert_close(ours, torch.autograd.grad((drawn_and_convolved(*inputs) * weights).sum(), inputs))


def test_the_layout_of_a_training_is_kept():
    coarse = torch.randn(2, 8, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):  # a float32 bias is not to make the map float32
        made = convolve_doubled(coarse, torch.randn(8, 8, 3, 3), torch.randn(8))
    assert made.dtype == torch.bfloat16
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_other_kernels_and_channels_are_refused():
    with pytest.raises(ShapeError, match="weight"):
        convolve_doubled(torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 5, 5))
    with pytest.raises(ShapeError, match="weight"):
        convolve_doubled(torch.zeros(1, 2, 4, 4), torch.zeros(3, 1, 3, 3))
    with pytest.raises(ShapeError, match="coarse"):
        convolve_doubled(torch.zeros(2, 4, 4), torch.zeros(3, 2, 3, 3))
    with pytest.raises(ShapeError, match="bias"):
        convolve_doubled(torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3), torch.zeros(2))


def test_the_bodies_agree(monkeypatch):
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 3, 2), torch.randn(2, 5, 6, 4), torch.randn(4, 8, 3, 3), torch.randn(4)
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    weights, results = torch.randn(2, 4, 6, 4, dtype=torch.float64), []
    for plain in ("0", "1"):
        monkeypatch.setenv("UNSCENE_PLAIN", plain)
        result = convolve_doubled_and_skip(*inputs)
        results.append((result, *torch.autograd.grad((result * weights).sum(), inputs)))
    assert_close(*results)

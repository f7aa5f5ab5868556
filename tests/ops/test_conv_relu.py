from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.ops import conv_relu as module
from unscene.ops.conv_relu import relu_convolutions

FORMS = [
    ("unpadded, three", [(4, 6, {}), (6, 6, {}), (6, 3, {})]),
    ("padded, one", [(4, 6, {"padding": 1})]),
    ("dilated, without bias", [(4, 6, {"padding": 2, "dilation": 2, "bias": False}), (6, 5, {"padding": 1})]),
    ("1x1", [(4, 2, {"kernel_size": 1})]),
]
SETTINGS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def layers_of(form):
    torch.manual_seed(0)
    return nn.ModuleList(nn.Conv2d(before, after, **{"kernel_size": 3, **more}) for before, after, more in form)


def features_of(dtype=torch.float32, batch=3):
    torch.manual_seed(1)
    return torch.randn(batch, 4, 12, 10).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def one_by_one(features, layers):
    for each in layers:
        features = torch.relu(each(features))
    return features


def gradients(answer, features, layers):
    weights = torch.randn(answer.shape, generator=torch.Generator().manual_seed(2)).to(answer.dtype)
    return torch.autograd.grad((answer * weights).sum(), [features, *layers.parameters()])


@SETTINGS
@pytest.mark.parametrize("form", [form for _, form in FORMS], ids=[name for name, _ in FORMS])
def test_it_is_convolution_and_relu_one_by_one(form, dtype):
    layers, features = layers_of(form).to(dtype), features_of(dtype)
    assert module._has_fast_body(features)
    ours, plain = relu_convolutions(features, layers), one_by_one(features, layers)
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert_close(ours, plain)
    assert (ours == 0).any()
    assert_close(gradients(ours, features, layers), gradients(plain, features, layers))


def test_under_autocast_it_is_bfloat16_with_float32_parameters():
    layers, features = layers_of(FORMS[0][1]), features_of()
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = relu_convolutions(features, layers), one_by_one(features, layers)
    assert ours.dtype == torch.bfloat16
    assert_close(ours, plain)
    for mine, theirs in zip(gradients(ours, features, layers), gradients(plain, features, layers), strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max()))


def test_the_gradient_that_comes_in_is_left_as_it_was():
    layers, features = layers_of(FORMS[0][1]), features_of()
    answer = relu_convolutions(features, layers)
    incoming = torch.ones_like(answer)
    answer.backward(incoming)
    assert torch.equal(incoming, torch.ones_like(answer))


def test_a_frozen_input_and_other_layouts_and_precisions_work():
    layers = layers_of(FORMS[0][1])
    frozen = features_of().detach()
    relu_convolutions(frozen, layers).sum().backward()
    assert all(parameter.grad is not None for parameter in layers.parameters())
    expected = one_by_one(frozen, layers)
    assert_close(relu_convolutions(frozen.contiguous(), layers), expected)
    assert_close(relu_convolutions(frozen.double(), layers.double()), expected.double(), rtol=1e-4, atol=1e-5)


def test_nothing_in_is_nothing_out():
    layers, features = layers_of(FORMS[0][1]), features_of()
    assert relu_convolutions(features, []) is features
    assert relu_convolutions(features[:0], layers).shape == (0, 3, 6, 4)


@pytest.mark.parametrize("more", [{"stride": 2}, {"groups": 2}, {"padding": "same"}, {"padding_mode": "reflect"}])
def test_other_convolutions_are_refused(more):
    with pytest.raises(RecipeError, match="one group and stride 1"):
        relu_convolutions(features_of(), [nn.Conv2d(4, 4, 3, **{"padding": 1, **more})])


def test_the_switch_takes_one_by_one(monkeypatch):
    layers, features = layers_of(FORMS[0][1]), features_of()
    fast = relu_convolutions(features, layers)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert not module._has_fast_body(features)
    assert_close(relu_convolutions(features, layers), fast)

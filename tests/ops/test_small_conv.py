from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.common.resnet_fpn import BackboneSettings, ResNetFPN
from unscene.ops.small_conv import FEW_PIXELS, SmallMapConv2d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (4, 4), (5, 3), (9, 8)])
def test_it_is_the_convolution_and_so_are_its_gradients(size, stride, layout):
    """Both sides of the limit, even and odd sides: 9 x 8 has more than 16 outputs at stride 1 and 20 at stride 2."""
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 5, 3, stride, 1, bias=False).double()
    ours = SmallMapConv2d(plain)
    features = torch.randn(3, 6, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    expected = plain(features)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), (features, plain.weight))
    answer = ours(features)
    assert_close(answer, expected)
    for mine, theirs in zip(
        torch.autograd.grad((answer * weights).sum(), (features, ours.weight)), wanted, strict=True
    ):
        assert_close(mine, theirs)


def test_only_few_pixels_are_a_product(monkeypatch):
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


def test_weights_keep_their_names_and_their_draw():
    """A backbone's weights load into torchvision's names, and are those that a seed always gave."""
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


def test_the_switch_takes_the_convolution(monkeypatch):
    plain, features = nn.Conv2d(6, 5, 3, padding=1, bias=False), torch.randn(3, 6, 2, 2)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert torch.equal(SmallMapConv2d(plain)(features), plain(features))

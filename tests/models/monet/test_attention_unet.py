from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.monet.attention_unet import AttentionUNet, AttentionUNetSettings


def reference(network: AttentionUNet, seen: torch.Tensor) -> torch.Tensor:
    """The paper's network: nearest resizing, concatenation, instance normalisation."""

    def block(layers, features):
        convolution, normalise = layers
        features = F.conv2d(features, convolution.weight, padding=1)
        return F.relu(F.instance_norm(features, weight=normalise.weight, bias=normalise.bias))

    skips = []
    features = seen
    for index, layers in enumerate(network.down):
        if index:
            features = F.interpolate(features, scale_factor=0.5, mode="nearest")
        features = block(layers, features)
        skips.append(features)
    features = network.bottom(features).view_as(features)
    for index, layers in enumerate(network.up):
        if index:
            features = F.interpolate(features, scale_factor=2, mode="nearest")
        features = block(layers, torch.cat([features, skips[-1 - index]], dim=1))
    return F.conv2d(features, network.to_logit.weight, network.to_logit.bias)


@pytest.mark.parametrize(("channels", "size"), [((4, 6, 8), 16), ((4, 8, 8, 6), 32), ((8,), 8)])
def test_it_is_the_papers_network(channels, size):
    torch.manual_seed(0)
    network = AttentionUNet(AttentionUNetSettings(channels, hidden=12), size).double()
    for weight in network.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    seen = torch.randn(2, 4, size, size, dtype=torch.float64)
    assert_close(network(seen), reference(network, seen))


@pytest.mark.parametrize(
    ("channels", "size"), [((32, 32, 64, 64, 64), 64), ((32, 32, 32, 64, 64, 64), 128)]
)  # "5 blocks for 64 pixels and 6 for 128": both end with 4 x 4 pixels
def test_the_papers_sizes_end_at_four_pixels(channels, size):
    network = AttentionUNet(AttentionUNetSettings(channels), size)
    assert network.bottom[1].in_features == 64 * 4 * 4
    assert [layer.out_features for layer in network.bottom if hasattr(layer, "out_features")] == [128, 128, 1024]
    assert [block[0].in_channels for block in network.up] == [
        below + beside for below, beside in zip((channels[-1], *channels[::-1]), channels[::-1], strict=False)
    ]
    with torch.no_grad():
        assert network(torch.rand(1, 4, size, size)).shape == (1, 1, size, size)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = AttentionUNet(AttentionUNetSettings((4, 8, 8), hidden=8), 16)
    network(torch.rand(3, 4, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize(("channels", "size"), [((8, 8, 8), 18), ((8, 8, 8, 8), 8), ((8, 8, 8), 4)])
def test_sizes_that_cannot_be_halved_are_refused(channels, size):
    with pytest.raises(RecipeError, match=rf"images of {size} pixels, .* cannot be halved {len(channels) - 1} times"):
        AttentionUNet(AttentionUNetSettings(channels), size)


def test_empty_settings_are_refused():
    with pytest.raises(RecipeError, match="channels"):
        AttentionUNetSettings(())
    with pytest.raises(RecipeError, match="channels"):
        AttentionUNetSettings((8, 0))


def test_a_patch_is_a_unet_on_squares_of_pixels():
    torch.manual_seed(0)
    ours = AttentionUNet(AttentionUNetSettings((8, 8), hidden=8, patch=2), 16)
    on_squares = AttentionUNet(AttentionUNetSettings((8, 8), hidden=8), 8)
    for name, layers in ours.named_children():
        setattr(on_squares, name, layers)  # it reads 16 channels and writes 4 logits a cell
    seen = torch.rand(2, 4, 16, 16)
    squares = torch.cat([seen[:, c : c + 1, y::2, x::2] for c in range(4) for y in (0, 1) for x in (0, 1)], dim=1)
    logits, expected = ours(seen), on_squares(squares)
    for index, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert_close(logits[:, 0, y::2, x::2], expected[:, index])

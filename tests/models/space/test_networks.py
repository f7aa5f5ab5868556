"""networks: values of the layers, computed separately, and the receptive field of a cell."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from unscene.models.space.networks import (
    StridedEncoder,
    SubpixelDecoder,
    group_norm,
    normed_conv,
    strided_convs,
)
from unscene.ops.convolutions import SubpixelConv2d


def normalised(maps: Tensor, groups: int, layer: nn.Module) -> Tensor:
    """Each group of channels of each image to mean 0 and variance 1, then the layer's own scale and shift."""
    grouped = maps.unflatten(1, (groups, -1)).flatten(2)
    mean, variance = grouped.mean(dim=2, keepdim=True), grouped.var(dim=2, unbiased=False, keepdim=True)
    flat = ((grouped - mean) / (variance + 1e-5).sqrt()).view_as(maps)
    shape = (1, -1, *[1] * (maps.ndim - 2))
    return flat * layer.weight.view(shape) + layer.bias.view(shape)


def convolved(maps: Tensor, stride: int, groups: int, layer: nn.Sequential) -> Tensor:
    convolution, _, norm = layer
    maps = F.pad(maps, (1, 1, 1, 1))
    return normalised(F.celu(F.conv2d(maps, convolution.weight, convolution.bias, stride)), groups, norm)


def shaken(network: nn.Module) -> nn.Module:
    """With norms that are no longer the identity."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.double()


def test_strided_layers_have_4x4_kernels_and_others_3x3():
    torch.manual_seed(0)
    network = shaken(strided_convs(3, (8, 8, 16), (2, 1, 2)))
    maps = images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for layer, stride, groups, kernel in zip(network, (2, 1, 2), (2, 2, 4), (4, 3, 4), strict=True):
        assert layer[0].kernel_size == (kernel, kernel)
        maps = convolved(maps, stride, groups, layer)
    assert maps.shape == (2, 16, 4, 4)
    assert_close(network(images), maps)


def test_encoder_reads_every_pixel_of_the_last_map():
    torch.manual_seed(0)
    encoder = shaken(StridedEncoder((8, 16), (2, 2), 16, 12, 7))
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    first, second = encoder.convolutions
    maps = convolved(convolved(images, 2, 2, first), 2, 4, second)
    _, hidden, _, norm, last = encoder.to_vector
    units = F.celu(maps.reshape(2, 16 * 4 * 4) @ hidden.weight.T + hidden.bias)
    assert_close(encoder(images), normalised(units, 3, norm) @ last.weight.T + last.bias)


def test_receptive_field_of_a_cell():
    network = strided_convs(1, (4, 4), (2, 2))
    for layer in network:
        layer[2] = nn.Identity()  # a norm reads every pixel
    images = torch.zeros(1, 1, 16, 16)
    changed = images.clone()
    changed[..., 5, 9] = 1.0
    rows, columns = torch.nonzero((network(changed) != network(images)).any(dim=1)[0], as_tuple=True)
    assert set(rows.tolist()) == {0, 1, 2}  # cell i sees pixels 4 i - 3 to 4 i + 6
    assert set(columns.tolist()) == {1, 2, 3}


@pytest.mark.parametrize(("channels", "size"), [((8,), 4), ((8, 4), 8), ((8, 8, 4), 16), ((8, 8, 8, 4), 128)])
def test_decoder_gives_maps_of_the_size(channels, size):
    decoder = SubpixelDecoder(5, 16, channels, 3, size)
    assert decoder(torch.randn(2, 5)).shape == (2, 3, size, size)
    assert len([layer for layer in decoder.modules() if isinstance(layer, SubpixelConv2d)]) == len(channels)


def test_later_levels_enlarge_more():
    decoder = SubpixelDecoder(5, 16, (8, 8, 8, 4), 1, 128)
    shuffles = [layer for layer in decoder.modules() if isinstance(layer, SubpixelConv2d)]
    assert [layer.factor for layer in shuffles] == [2, 4, 4, 4]  # 128 in all


def test_images_are_normalised_separately():
    torch.manual_seed(0)
    layer, maps = normed_conv(3, 8, 3), torch.randn(3, 3, 6, 6)
    assert_close(layer(maps)[1:2], layer(maps[1:2]))
    groups = layer(maps).unflatten(1, (2, 4)).flatten(2)
    assert_close(groups.mean(dim=2), torch.zeros(3, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (8, 2), (18, 3), (16, 4), (64, 16), (256, 16)])
def test_groups_divide_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_without_norm_the_output_scales_with_the_brightness():
    torch.manual_seed(0)
    maps = torch.rand(1, 3, 6, 6).expand(2, -1, -1, -1) * torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)
    spread = normed_conv(3, 8, 3, norm=False)(maps).flatten(1).std(dim=1)
    assert (spread[1] / spread[0]).item() > 2
    spread = normed_conv(3, 8, 3)(maps).flatten(1).std(dim=1)
    assert (spread[1] / spread[0]).item() < 1.1

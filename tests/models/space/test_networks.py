"""networks: the values of its layers, computed apart, what a cell sees, and errors that name the setting."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.space.networks import (
    StridedEncoder,
    SubpixelDecoder,
    group_norm,
    normed_convolution,
    strided_convolutions,
)
from unscene.ops.subpixel_conv import SubpixelConv2d

NAMES = {"settings": "model.part.channels and strides", "size_setting": "model.part.size"}
DECODER_NAMES = {"settings": "model.part.channels", "size_setting": "model.part.size"}


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


def test_layers_of_a_half_have_kernels_of_four_and_others_of_three():
    torch.manual_seed(0)
    network = shaken(strided_convolutions(3, (8, 8, 16), (2, 1, 2), NAMES["settings"]))
    maps = images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for layer, stride, groups, kernel in zip(network, (2, 1, 2), (2, 2, 4), (4, 3, 4), strict=True):
        assert layer[0].kernel_size == (kernel, kernel)
        maps = convolved(maps, stride, groups, layer)
    assert maps.shape == (2, 16, 4, 4)
    assert_close(network(images), maps)


def test_a_vector_is_read_of_the_whole_last_map():
    torch.manual_seed(0)
    encoder = shaken(StridedEncoder(3, (8, 16), (2, 2), 16, 12, 7, **NAMES))
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    first, second = encoder.convolutions
    maps = convolved(convolved(images, 2, 2, first), 2, 4, second)
    _, hidden, _, norm, last = encoder.to_vector
    units = F.celu(maps.reshape(2, 16 * 4 * 4) @ hidden.weight.T + hidden.bias)
    assert_close(encoder(images), normalised(units, 3, norm) @ last.weight.T + last.bias)


def test_a_cell_sees_its_own_place():
    network = strided_convolutions(1, (4, 4), (2, 2), NAMES["settings"])
    for layer in network:
        layer[2] = nn.Identity()  # a norm sees the whole map
    images = torch.zeros(1, 1, 16, 16)
    changed = images.clone()
    changed[..., 5, 9] = 1.0
    rows, columns = torch.nonzero((network(changed) != network(images)).any(dim=1)[0], as_tuple=True)
    assert set(rows.tolist()) == {0, 1, 2}  # cell i sees pixels 4 i - 3 to 4 i + 6
    assert set(columns.tolist()) == {1, 2, 3}


@pytest.mark.parametrize(
    ("channels", "strides"), [((), ()), ((8, 0), (2, 2)), ((8, 8), (2,)), ((8, 8), (2, 4)), ((8, 8), (2, 0))]
)
def test_impossible_layers_are_refused_by_their_settings_name(channels, strides):
    with pytest.raises(
        RecipeError, match=r"^model\.part\.channels and strides must be of at least one layer"
    ) as caught:
        StridedEncoder(3, channels, strides, 8, 8, 8, **NAMES)
    assert f"there are channels {list(channels)} and strides {list(strides)}." in str(caught.value)


@pytest.mark.parametrize("size", [12, 4, 0])
def test_a_size_that_the_strides_do_not_divide_is_refused_by_its_name(size):
    message = (
        rf"^model\.part\.channels and strides cannot divide the {size} pixels of model\.part\.size .* multiple of 8"
    )
    with pytest.raises(RecipeError, match=message):
        StridedEncoder(3, (8, 8, 8), (2, 2, 2), size, 8, 8, **NAMES)


@pytest.mark.parametrize(("channels", "size"), [((8,), 4), ((8, 4), 8), ((8, 8, 4), 16), ((8, 8, 8, 4), 128)])
def test_a_vector_becomes_a_map(channels, size):
    decoder = SubpixelDecoder(5, 16, channels, 3, size, **DECODER_NAMES)
    assert decoder(torch.randn(2, 5)).shape == (2, 3, size, size)
    assert len([each for each in decoder.modules() if isinstance(each, SubpixelConv2d)]) == len(channels)


def test_later_levels_enlarge_more():
    decoder = SubpixelDecoder(5, 16, (8, 8, 8, 4), 1, 128, **DECODER_NAMES)
    shuffles = [each for each in decoder.modules() if isinstance(each, SubpixelConv2d)]
    assert [each.factor for each in shuffles] == [2, 4, 4, 4]  # 128 in all


@pytest.mark.parametrize(("channels", "size"), [((8,), 12), ((), 8), ((8, 8, 8), 4)])
def test_sizes_that_cannot_be_drawn_are_refused_by_their_settings_names(channels, size):
    with pytest.raises(
        RecipeError,
        match=rf"^model\.part\.channels cannot draw the {size} pixels of model\.part\.size in {len(channels)} levels: "
        "the size must be a power of 2",
    ):
        SubpixelDecoder(5, 16, channels, 3, size, **DECODER_NAMES)


def test_a_level_without_channels_is_refused_by_its_settings_name():
    with pytest.raises(RecipeError, match=r"^model\.part\.channels must be 1 or more each, not \[8, 0\]"):
        SubpixelDecoder(5, 16, (8, 0), 3, 8, **DECODER_NAMES)


def test_latents_of_another_length_are_refused():
    with pytest.raises(ShapeError, match="latents"):
        SubpixelDecoder(5, 16, (8,), 3, 4, **DECODER_NAMES)(torch.zeros(2, 4))


def test_every_image_is_normalised_by_itself():
    torch.manual_seed(0)
    layer, maps = normed_convolution(3, 8, 3), torch.randn(3, 3, 6, 6)
    assert_close(layer(maps)[1:2], layer(maps[1:2]))
    groups = layer(maps).unflatten(1, (2, 4)).flatten(2)
    assert_close(groups.mean(dim=2), torch.zeros(3, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (8, 2), (18, 3), (16, 4), (64, 16), (256, 16)])
def test_groups_divide_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_without_normalisation_a_layer_tells_how_bright_its_maps_are():
    torch.manual_seed(0)
    maps = torch.rand(1, 3, 6, 6).expand(2, -1, -1, -1) * torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)
    spread = normed_convolution(3, 8, 3, norm=False)(maps).flatten(1).std(dim=1)
    assert (spread[1] / spread[0]).item() > 2
    spread = normed_convolution(3, 8, 3)(maps).flatten(1).std(dim=1)
    assert (spread[1] / spread[0]).item() < 1.1

"""strided_encoder: the values of its layers, computed apart, what a cell sees, and errors that name the setting."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.space.strided_encoder import StridedEncoder, strided_convolutions

NAMES = {"settings": "model.part.channels and strides", "size_setting": "model.part.size"}


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

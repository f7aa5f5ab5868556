from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unscene.blocks.normed_convolution import group_norm, normed_convolution
from unscene.blocks.strided_encoder import StridedEncoder, strided_convolutions
from unscene.blocks.subpixel_decoder import SubpixelDecoder
from unscene.errors import RecipeError, ShapeError


@pytest.mark.parametrize(("channels", "size"), [((8,), 4), ((8, 4), 8), ((8, 8, 4), 16), ((8, 8, 8, 4), 128)])
def test_a_vector_becomes_a_map(channels, size):
    decoder = SubpixelDecoder(5, 16, channels, 3, size)
    assert decoder(torch.randn(2, 5)).shape == (2, 3, size, size)
    assert len([each for each in decoder.modules() if isinstance(each, nn.PixelShuffle)]) == len(channels)


def test_later_levels_enlarge_more():
    shuffles = [
        each for each in SubpixelDecoder(5, 16, (8, 8, 8, 4), 1, 128).modules() if isinstance(each, nn.PixelShuffle)
    ]
    assert [each.upscale_factor for each in shuffles] == [2, 4, 4, 4]  # 128 in all


@pytest.mark.parametrize(("channels", "size"), [((8,), 12), ((), 8), ((8, 8, 8), 4)])
def test_sizes_that_cannot_be_drawn_are_refused(channels, size):
    with pytest.raises(RecipeError, match="power of 2"):
        SubpixelDecoder(5, 16, channels, 3, size)
    with pytest.raises(ShapeError, match="latents"):
        SubpixelDecoder(5, 16, (8,), 3, 4)(torch.zeros(2, 4))


def test_strides_of_an_encoder():
    maps = strided_convolutions(3, (8, 8, 16), (2, 1, 2))(torch.randn(2, 3, 16, 16))
    assert maps.shape == (2, 16, 4, 4)
    assert StridedEncoder(3, (8, 16), (2, 2), 16, 12, 7)(torch.randn(2, 3, 16, 16)).shape == (2, 7)
    with pytest.raises(RecipeError, match="a stride of 1 or 2 for each"):
        strided_convolutions(3, (8, 8), (2,))
    with pytest.raises(RecipeError, match="a stride of 1 or 2 for each"):
        strided_convolutions(3, (8, 8), (2, 4))
    with pytest.raises(RecipeError, match="take fewer layers of stride 2"):
        StridedEncoder(3, (8, 8, 8), (2, 2, 2), 12, 8, 8)


def test_every_image_is_normalised_by_itself():
    torch.manual_seed(0)
    layer, maps = normed_convolution(3, 8, 3), torch.randn(3, 3, 6, 6)
    assert_close(layer(maps)[1:2], layer(maps[1:2]))
    groups = layer(maps).unflatten(1, (2, 4)).flatten(2)
    assert_close(groups.mean(dim=2), torch.zeros(3, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (8, 2), (18, 3), (16, 4), (64, 16), (256, 16)])
def test_groups_divide_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.space.normed_convolution import group_norm, normed_convolution
from unscene.models.space.subpixel_decoder import SubpixelDecoder

NAMES = {"settings": "model.part.channels", "size_setting": "model.part.size"}


@pytest.mark.parametrize(("channels", "size"), [((8,), 4), ((8, 4), 8), ((8, 8, 4), 16), ((8, 8, 8, 4), 128)])
def test_a_vector_becomes_a_map(channels, size):
    decoder = SubpixelDecoder(5, 16, channels, 3, size, **NAMES)
    assert decoder(torch.randn(2, 5)).shape == (2, 3, size, size)
    assert len([each for each in decoder.modules() if isinstance(each, nn.PixelShuffle)]) == len(channels)


def test_later_levels_enlarge_more():
    decoder = SubpixelDecoder(5, 16, (8, 8, 8, 4), 1, 128, **NAMES)
    shuffles = [each for each in decoder.modules() if isinstance(each, nn.PixelShuffle)]
    assert [each.upscale_factor for each in shuffles] == [2, 4, 4, 4]  # 128 in all


@pytest.mark.parametrize(("channels", "size"), [((8,), 12), ((), 8), ((8, 8, 8), 4)])
def test_sizes_that_cannot_be_drawn_are_refused_by_their_settings_names(channels, size):
    with pytest.raises(
        RecipeError,
        match=rf"^model\.part\.channels cannot draw the {size} pixels of model\.part\.size in {len(channels)} levels: "
        "the size must be a power of 2",
    ):
        SubpixelDecoder(5, 16, channels, 3, size, **NAMES)


def test_a_level_without_channels_is_refused_by_its_settings_name():
    with pytest.raises(RecipeError, match=r"^model\.part\.channels must be 1 or more each, not \[8, 0\]"):
        SubpixelDecoder(5, 16, (8, 0), 3, 8, **NAMES)


def test_latents_of_another_length_are_refused():
    with pytest.raises(ShapeError, match="latents"):
        SubpixelDecoder(5, 16, (8,), 3, 4, **NAMES)(torch.zeros(2, 4))


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

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.common.spatial_broadcast_decoder import SpatialBroadcastDecoder, coordinate_grid


def tile_then_convolve(decoder: SpatialBroadcastDecoder, latents: Tensor, size: int, padding: str) -> Tensor:
    """The decoder as Watters et al. draw it: the latent at every pixel, coordinates beside it, then convolutions."""
    stride, layers = decoder.stride, 1 + len(decoder.hidden)
    activation = F.elu if decoder.activation == "elu" else F.relu
    border = decoder.first.kernel_size[0] // 2
    grid = size // stride + 2 * border * (layers if padding == "valid" else 1)
    line = torch.tensor([-1 + 2 * cell / (grid - 1) for cell in range(grid)], dtype=latents.dtype)
    rows, columns = line[:, None].expand(grid, grid), line[None].expand(grid, grid)
    decoded = []
    for latent in latents:
        features = torch.cat([latent[:, None, None].expand(-1, grid, grid), rows[None], columns[None]])[None]
        features = activation(F.conv2d(features, decoder.first.weight, decoder.first.bias))
        for layer in decoder.hidden:
            features = activation(
                F.conv2d(features, layer.weight, layer.bias, padding=0 if padding == "valid" else border)
            )
        decoded.append(shuffled(F.conv2d(features, decoder.last.weight, decoder.last.bias)[0], stride))
    return torch.stack(decoded)


def shuffled(blocks: Tensor, stride: int) -> Tensor:
    """[C * stride**2, h, w] -> [C, h * stride, w * stride]: channel (c, i, j) of a cell is its pixel (i, j)."""
    channels, height, width = len(blocks) // stride**2, *blocks.shape[1:]
    image = blocks.new_zeros(channels, height * stride, width * stride)
    for c in range(channels):
        for i in range(stride):
            for j in range(stride):
                image[c, i::stride, j::stride] = blocks[c * stride**2 + i * stride + j]
    return image


@pytest.mark.parametrize("activation", ["relu", "elu"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (4, 3), (3, 5)])
def test_fast_first_layer_equals_the_tiled_convolution(padding, stride, layers, kernel, activation):
    torch.manual_seed(0)
    decoder = SpatialBroadcastDecoder(5, 4, 6, layers, 16, padding, stride, activation, kernel).double()
    decoder.first.bias.data.normal_()
    latents = torch.randn(3, 5, dtype=torch.float64)
    decoded = decoder(latents)
    assert decoded.shape == (3, 4, 16, 16)
    assert_close(decoded, tile_then_convolve(decoder, latents, 16, padding), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_fast_first_layer_has_the_gradients_of_the_tiled_convolution(activation):
    torch.manual_seed(0)
    decoder = SpatialBroadcastDecoder(3, 4, channels=4, layers=2, size=8, activation=activation).double()
    latents = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    variables = [latents, *decoder.parameters()]
    by_shortcut = torch.autograd.grad(decoder(latents).square().sum(), variables)
    by_tiling = torch.autograd.grad(tile_then_convolve(decoder, latents, 8, "valid").square().sum(), variables)
    for shortcut, tiling in zip(by_shortcut, by_tiling, strict=True):
        assert_close(shortcut, tiling, rtol=1e-5, atol=1e-4)


def test_coordinates_run_from_corner_to_corner():
    y, x = coordinate_grid(3)[0]
    assert y.tolist() == [[-1, -1, -1], [0, 0, 0], [1, 1, 1]]
    assert x.tolist() == [[-1, 0, 1]] * 3


def test_the_coordinates_are_no_weights():
    assert "coordinates" not in SpatialBroadcastDecoder(2, 4, size=8).state_dict()


@pytest.mark.parametrize("wrong", [{"stride": 3}, {"stride": 0}, {"stride": -2}, {"layers": 0}, {"kernel": 4}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(RecipeError, match="16 pixels"):
        SpatialBroadcastDecoder(4, 4, size=16, **wrong)


def test_a_latent_of_another_length_is_refused():
    with pytest.raises(ShapeError, match="latents"):
        SpatialBroadcastDecoder(4, 4, size=8)(torch.zeros(2, 5))

"""The spatial broadcast decoder (Watters et al., 2019): a latent tiled over a grid of coordinates, and convolved."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.common.layers import kaiming_init_
from unscene.ops.convolutions import convolve_tiled

Padding = Literal["valid", "same"]
Activation = Literal["relu", "elu"]


class SpatialBroadcastDecoder(nn.Module):
    """Decode [S, D] latents to [S, out_channels, size, size].

    The latent is tiled over a grid of coordinates in -1..1. Then come `layers` convolutions, each with an activation,
    and one 1x1 convolution to the output.

    Args:
        latent_dim: D.
        out_channels: 4 in the component VAE: colour and mask logit.
        channels: channels of the hidden layers.
        layers: number of convolutions.
        size: height and width of the output.
        padding: `valid` (the paper's): the grid has `layers` more 3x3 borders than the output and no convolution is
            padded. `same`: all but the first are padded, a fifth less work; the zeros reach `layers - 1` borders.
        stride: the grid is size / stride wide and the last layer writes stride x stride pixels for each cell (a pixel
            shuffle). 1 is the paper's; 2 is ours, a quarter of the work.
        activation: `relu` (MONet's) or `elu` (IODINE's).
        kernel: side of the kernels, odd.
    """

    def __init__(
        self,
        latent_dim: int,
        out_channels: int,
        channels: int = 32,
        layers: int = 4,
        size: int = 64,
        padding: Padding = "valid",
        stride: int = 1,
        activation: Activation = "relu",
        kernel: int = 3,
    ) -> None:
        super().__init__()
        if min(layers, stride) < 1 or size % stride or kernel % 2 == 0:
            raise RecipeError(
                f"a decoder of {layers} layers with kernels of {kernel} cannot write {size} pixels at stride {stride}: "
                "choose a size that is a multiple of the stride, a stride and layers of 1 or more, and an odd kernel."
            )
        self.stride = stride
        self.activation = activation
        border = kernel // 2
        margin = 2 * border * (layers if padding == "valid" else 1)
        self.register_buffer("coordinates", coordinate_grid(size // stride + margin), persistent=False)
        self.first = nn.Conv2d(latent_dim + 2, channels, kernel)
        pad = 0 if padding == "valid" else border
        self.hidden = nn.ModuleList(nn.Conv2d(channels, channels, kernel, padding=pad) for _ in range(layers - 1))
        self.last = nn.Conv2d(channels, out_channels * stride**2, 1)
        self.latent_dim = latent_dim
        kaiming_init_(self.first, *self.hidden)

    coordinates: Tensor

    def forward(self, latents: Tensor) -> Tensor:
        """[S, D] -> [S, out_channels, size, size]."""
        check_shape(latents, f"S {self.latent_dim}", "latents")
        features = convolve_tiled(latents, self.coordinates, self.first.weight, self.first.bias)
        activate = F.elu_ if self.activation == "elu" else F.relu_
        features = activate(features)
        for layer in self.hidden:
            features = activate(layer(features))
        return F.pixel_shuffle(self.last(features), self.stride)


def coordinate_grid(size: int) -> Tensor:
    """Return [1, 2, size, size]: y and x of every pixel, from -1 to 1 inclusive."""
    line = torch.linspace(-1, 1, size)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))[None]

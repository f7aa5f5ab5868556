"""A convolutional auto-encoder, variational or not, with or without skips (Liu et al., 2019, Section 2.6)."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.models.common.gaussian import sample_gaussian
from unscene.models.common.layers import kaiming_init_, mlp
from unscene.ops.convolutions import convolve_doubled
from unscene.ops.dispatch import at_least_float32
from unscene.settings import settings_dataclass


@settings_dataclass
class AutoencoderSettings:
    """Settings of the auto-encoder."""

    # channels of the encoder's 3x3 convolutions of stride 2, from the image down; the decoder mirrors them
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 64, 64)
    hidden: PositiveInt = 256  # units between the smallest map and the code, in encoder and decoder
    latent_dim: PositiveInt = 32  # D
    # each level of the decoder sees the encoder's map of its size ("auto-encoder with skip-connection")
    skips: bool = False


class Code(NamedTuple):
    mean: Tensor  # [B, D]
    log_variance: Tensor  # [B, D]
    maps: tuple[Tensor, ...]  # of the encoder's levels, the largest first

    def sample(self) -> Tensor:
        """A sample of the diagonal Gaussian, [B, D]."""
        return sample_gaussian(self.mean, self.log_variance)


class ConvolutionalAutoencoder(nn.Module):
    """`encode` x and s, [B, 4, size, size], to a diagonal Gaussian over codes; `decode` a code to an image in 0..1.

    A level of the decoder repeats each cell of its map twice in both directions, then convolves. Transposed
    convolutions whose kernel is no multiple of their stride would leave a checkerboard in the quality of single pixels.
    """

    def __init__(self, settings: AutoencoderSettings, size: int) -> None:
        super().__init__()
        channels, levels = settings.channels, len(settings.channels)
        if size % 2**levels:
            hint = f"choose a multiple of {2**levels}, or fewer channels"
            raise RecipeError(f"images of {size} pixels cannot be halved {levels} times: {hint}.")
        self.settings = settings
        self.smallest = (channels[-1], size // 2**levels, size // 2**levels)
        units = channels[-1] * (size // 2**levels) ** 2
        levels_down = zip((4, *channels), channels, strict=False)
        self.down = nn.ModuleList(nn.Conv2d(*c_in_out, 3, stride=2, padding=1) for c_in_out in levels_down)
        self.to_code = nn.Sequential(
            nn.Flatten(), *mlp(units, settings.hidden), nn.Linear(settings.hidden, 2 * settings.latent_dim)
        )
        self.from_code = nn.Sequential(*mlp(settings.latent_dim, settings.hidden, units))
        levels_up = zip(channels[::-1], (*channels[-2::-1], channels[0]), strict=True)
        self.up = nn.ModuleList(nn.Conv2d(c_in * (2 if settings.skips else 1), c_out, 3) for c_in, c_out in levels_up)
        self.to_image = nn.Conv2d(channels[0], 3, 3, padding=1)
        kaiming_init_(*self.down, *self.up, *list(self.to_code)[:-1], *self.from_code)

    def encode(self, images: Tensor) -> Code:
        """[B, 4, H, W] -> Code."""
        maps = []
        features = images.contiguous(memory_format=torch.channels_last)
        for level in self.down:
            features = level(features).relu_()
            maps.append(features)
        mean, log_variance = at_least_float32(self.to_code(features)).chunk(2, dim=1)
        return Code(mean, log_variance, tuple(maps))

    def decode(self, latents: Tensor, maps: tuple[Tensor, ...] = ()) -> Tensor:
        """Latents [B, D], and the encoder's maps for the skips -> [B, 3, H, W] in 0..1."""
        features = self.from_code(latents).unflatten(1, self.smallest).contiguous(memory_format=torch.channels_last)
        for index, level in enumerate(self.up):
            if self.settings.skips:
                features = torch.cat([features, maps[-1 - index]], dim=1)
            assert isinstance(level, nn.Conv2d)
            features = convolve_doubled(features, level.weight, level.bias).relu_()
        return at_least_float32(self.to_image(features)).sigmoid()

"""Image to code and back by convolutions: halving encoder, doubling decoder, with or without skip connections."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.common.gaussian import sample_gaussian
from unscene.models.common.precision import at_least_float32
from unscene.models.common.spatial_broadcast_decoder import keep_variance
from unscene.ops.upsampled_conv import convolve_doubled


@dataclass(frozen=True)
class AutoencoderSettings:
    """Settings of the auto-encoder.

    Attributes:
        channels: of the encoder's 3x3 convolutions of stride 2, from the image down; the decoder mirrors them.
        hidden: units between the smallest map and the code, on both sides.
        latent_dim: D.
        skips: the decoder's levels see the encoder's maps of their size ("auto-encoder with skip-connection").
    """

    channels: tuple[int, ...] = field(default=(32, 64, 64, 64))
    hidden: int = 256
    latent_dim: int = 32
    skips: bool = False

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, self.hidden, self.latent_dim) < 1:
            raise RecipeError("an auto-encoder needs at least one level, and channels, hidden and latent_dim above 0.")


@dataclass(frozen=True)
class Code:
    """What the encoder says of a batch of images.

    Attributes:
        mean: [B, D].
        log_variance: [B, D].
        maps: of the encoder's levels, the largest first.
    """

    mean: Tensor
    log_variance: Tensor
    maps: tuple[Tensor, ...]

    def sample(self) -> Tensor:
        """[B, D] a sample of the diagonal Gaussian."""
        return sample_gaussian(self.mean, self.log_variance)


class ConvolutionalAutoencoder(nn.Module):
    """`encode` images to a diagonal Gaussian over codes, `decode` a code to an image in 0..1.

    A level of the decoder doubles its map by repeating cells and convolves it: transposed convolutions with strides
    that do not divide their kernel would leave a checkerboard, which a quality of single pixels would see.

    Args:
        settings: see `AutoencoderSettings`.
        in_channels: of what is encoded.
        out_channels: of what is decoded.
        size: height and width of the images.

    Raises:
        RecipeError: a size that the levels do not halve evenly.
    """

    def __init__(self, settings: AutoencoderSettings, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        levels = len(settings.channels)
        if size % 2**levels:
            raise RecipeError(
                f"images of {size} pixels cannot be halved {levels} times: choose a size that is a multiple of "
                f"{2**levels}, or fewer model.network.channels."
            )
        self.settings = settings
        self.smallest = (settings.channels[-1], size // 2**levels, size // 2**levels)
        units = settings.channels[-1] * (size // 2**levels) ** 2
        before = (in_channels, *settings.channels[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(one, other, 3, stride=2, padding=1) for one, other in zip(before, settings.channels, strict=True)
        )
        self.to_code = nn.Sequential(
            nn.Flatten(),
            nn.Linear(units, settings.hidden),
            nn.ReLU(),
            nn.Linear(settings.hidden, 2 * settings.latent_dim),
        )
        self.from_code = nn.Sequential(
            nn.Linear(settings.latent_dim, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, units), nn.ReLU()
        )
        after = (*settings.channels[-2::-1], settings.channels[0])
        skips = [2 * each if settings.skips else each for each in settings.channels[::-1]]
        self.up = nn.ModuleList(nn.Conv2d(one, other, 3) for one, other in zip(skips, after, strict=True))
        self.to_image = nn.Conv2d(settings.channels[0], out_channels, 3, padding=1)
        keep_variance(*self.down, *self.up, *list(self.to_code)[:-1], *self.from_code)

    def encode(self, images: Tensor) -> Code:
        """[B, in_channels, H, W] -> Code."""
        check_shape(images, "B C H W", "images")
        maps = []
        features = images.contiguous(memory_format=torch.channels_last)
        for level in self.down:
            features = level(features).relu_()
            maps.append(features)
        mean, log_variance = at_least_float32(self.to_code(features)).chunk(2, dim=1)
        return Code(mean, log_variance, tuple(maps))

    def decode(self, latents: Tensor, maps: tuple[Tensor, ...] = ()) -> Tensor:
        """Latents [B, D], and the encoder's maps where there are skips -> [B, out_channels, H, W] in 0..1."""
        features = self.from_code(latents).unflatten(1, self.smallest).contiguous(memory_format=torch.channels_last)
        for level, beside in zip(self.up, maps[::-1] if self.settings.skips else [None] * len(self.up), strict=True):
            if beside is not None:
                features = torch.cat([features, beside], dim=1)
            assert isinstance(level, nn.Conv2d)
            features = convolve_doubled(features, level.weight, level.bias).relu_()
        image: Tensor = at_least_float32(self.to_image(features)).sigmoid()
        return image

    def forward(self, images: Tensor) -> Tensor:
        """Encode, and decode the mean."""
        code = self.encode(images)
        return self.decode(code.mean, code.maps)

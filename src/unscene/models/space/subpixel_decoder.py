"""From a vector to a map by sub-pixel convolutions (Shi et al., 2016), as in SPACE's glimpse and mask decoders."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.space.normed_convolution import group_norm, normed_convolution


class SubpixelDecoder(nn.Module):
    """Decode vectors [S, D] to maps [S, out_channels, size, size].

    A vector is a map of one pixel. Each level writes factor x factor pixels in the place of one, with a 1x1 convolution
    and a pixel shuffle, and convolves them by 3x3.

    Args:
        latent_dim: D.
        hidden: channels of the map of one pixel.
        channels: of the levels.
        out_channels: of the answer.
        size: height and width of the answer, a power of 2; each level multiplies by 2 or more, the later ones by more.
        settings: what a recipe calls the channels, for the errors.
        size_setting: what it calls the size.
        norm: whether the layers normalise.

    Raises:
        RecipeError: a size that so many levels cannot reach, or a level without channels.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: int,
        channels: Sequence[int],
        out_channels: int,
        size: int,
        settings: str,
        size_setting: str,
        norm: bool = True,
    ) -> None:
        super().__init__()
        doublings = size.bit_length() - 1
        if not channels or 2**doublings != size or doublings < len(channels):
            raise RecipeError(
                f"{settings} cannot draw the {size} pixels of {size_setting} in {len(channels)} levels: the size must "
                f"be a power of 2, and the levels from 1 to {max(1, doublings)}."
            )
        if min(channels) < 1:
            raise RecipeError(f"{settings} must be 1 or more each, not {list(channels)}.")
        self.latent_dim = latent_dim
        each, larger = divmod(doublings, len(channels))
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, hidden, 1), nn.CELU(), group_norm(hidden, norm)]
        before = hidden
        for level, width in enumerate(channels):
            factor = 2 ** (each + (level >= len(channels) - larger))
            layers += [nn.Conv2d(before, width * factor**2, 1), nn.PixelShuffle(factor), nn.CELU()]
            layers += [group_norm(width, norm), normed_convolution(width, width, 3, norm=norm)]
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, out_channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """[S, D] -> [S, out_channels, size, size]."""
        check_shape(latents, f"S {self.latent_dim}", "latents")
        maps: Tensor = self.layers(latents[:, :, None, None])
        return maps

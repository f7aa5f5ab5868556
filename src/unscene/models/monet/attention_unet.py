"""MONet's attention network: a UNet from image and log scope to one logit a pixel (Burgess et al., 2019, B.2)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.models.common.layers import kaiming_init_, mlp
from unscene.ops.convolutions import convolve_doubled_and_skip
from unscene.ops.group_norm_relu import GroupNormReLU
from unscene.settings import settings_dataclass


@settings_dataclass
class AttentionUNetSettings:
    """Settings of the UNet; the defaults are MONet's for 64 pixels. For 128 they are 32, 32, 32, 64, 64, 64."""

    # of the blocks on the way down, whose maps halve from one to the next; on the way up in reverse
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 32, 64, 64, 64)
    hidden: PositiveInt = 128  # units of the two hidden layers between the smallest map and itself
    # The network reads each square of patch x patch pixels as one cell and writes its logits at once. 1 is MONet's; 2
    # is ours, less work.
    patch: PositiveInt = 1


class AttentionUNet(nn.Module):
    """Blocks of 3x3 convolution without bias, instance normalisation and ReLU, halved by taking every second pixel,
    joined at the bottom by a multilayer perceptron, and up again beside the maps of their size.

    A RecipeError where the blocks do not halve `size` evenly, or to less than 2 pixels: one pixel has no variance.
    """

    def __init__(self, settings: AttentionUNetSettings, size: int) -> None:
        super().__init__()
        channels, self.patch = settings.channels, settings.patch
        divisor = self.patch * 2 ** (len(channels) - 1)
        smallest = size // divisor
        if size % divisor or smallest < 2:
            raise RecipeError(
                f"images of {size} pixels, read in squares of {self.patch}, cannot be halved {len(channels) - 1} times "
                f"to 2 pixels or more: choose a multiple of {divisor} from {2 * divisor} on, or fewer channels."
            )
        widths = (4 * self.patch**2, *channels)
        self.down = nn.ModuleList(_block(c_in, c_out) for c_in, c_out in zip(widths, channels, strict=False))
        units = channels[-1] * smallest**2
        self.bottom = nn.Sequential(nn.Flatten(), *mlp(units, settings.hidden, settings.hidden, units))
        mirrored = channels[::-1]
        below = (channels[-1], *mirrored)
        self.up = nn.ModuleList(
            _block(coarse + skip, c_out) for coarse, skip, c_out in zip(below, mirrored, mirrored, strict=False)
        )
        self.to_logit = nn.Conv2d(channels[0], self.patch**2, 1)
        kaiming_init_(*self.bottom, *(block[0] for block in [*self.down, *self.up]))  # type: ignore[index]

    def forward(self, seen: Tensor, index: int = 0) -> Tensor:
        """Image and log scope [B, 4, size, size] -> logits [B, 1, size, size]; the same for every pass `index`."""
        features = F.pixel_unshuffle(seen, self.patch).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for block in self.down:
            features = block(features[:, :, ::2, ::2] if skips else features)
            skips.append(features)
        features = self.bottom(features).view_as(features)
        for block, skip in zip(self.up, skips[::-1], strict=True):
            assert isinstance(block, nn.Sequential)
            convolution, normalise = block
            assert isinstance(convolution, nn.Conv2d)
            if features.shape == skip.shape:  # the lowest block's maps are not halved
                features = convolution(torch.cat([features, skip], dim=1))
            else:
                features = convolve_doubled_and_skip(features, skip, convolution.weight)
            features = normalise(features)
        return F.pixel_shuffle(self.to_logit(features), self.patch)


def _block(c_in: int, c_out: int) -> nn.Sequential:
    """Convolution, instance normalisation (a group for each channel) and ReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), GroupNormReLU(c_out, c_out))

"""Where a step looks for an object: the region of best quality, and a window around it (Liu et al., 2019, 2.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

THRESHOLD = 0.5  # "giving a hard threshold gives clearer segmentation": w = 1 where G > .5 (Section 2.4)


@torch.no_grad()
def best_region(quality: Tensor, side: int, allowed: Tensor | None = None) -> Tensor:
    """[B, 2] int64 row and column of the centre of the square with the largest sum of s Q, [B, 1, H, W].

    Section 2.3: a convolution with weights 1, then argmax (line 7 of Algorithm 2 prints the argmax of Q itself). `side`
    is odd. Pixels outside the image count 0 ("SAME padding"). Of equal squares the first in reading order wins. The
    centre is one of the `allowed` pixels, bool [B, 1, H, W].
    """
    sums = _sums_along(_sums_along(quality.float(), side, axis=2), side, axis=3)
    if allowed is not None:
        sums = sums.masked_fill(~allowed, -1)
    best = sums.flatten(1).argmax(dim=1)
    width = quality.shape[3]
    return torch.stack([best // width, best % width], dim=1)


def _sums_along(maps: Tensor, side: int, axis: int) -> Tensor:
    """Sums of `side` neighbours along an axis, 0 beyond the ends. Twice this takes an eighth of `avg_pool2d`'s time."""
    reach, length = side // 2, maps.shape[axis]
    padded = F.pad(maps, (reach, reach) if axis == 3 else (0, 0, reach, reach))
    total = padded.narrow(axis, 0, length).clone()
    for shift in range(1, side):
        total += padded.narrow(axis, shift, length)
    return total


def butterworth(distance: Tensor, order: float, cutoff: float) -> Tensor:
    """G(r, n, f) = 1 / sqrt(1 + (r / f)^(2 n)) for distances r of any shape; r and f in pixels."""
    return (1 + (distance / cutoff).pow(2 * order)).rsqrt()


@dataclass(frozen=True)
class Window:
    """The P pixels of the square around each centre that holds all pixels with G > .5; the others have weight 0."""

    pixels: Tensor  # [B, P] flat indices into the image; beyond the border, the index of the nearest pixel
    weights: Tensor  # [B, P] w = 1 where G(|i - i_c|) G(|j - j_c|) > .5, else 0; 0 beyond the border
    size: tuple[int, int]  # height and width of the image

    @staticmethod
    def around(centres: Tensor, size: tuple[int, int], order: float, cutoff: float) -> Window:
        """The window around centres [B, 2], row and column."""
        height, width = size
        # G(r) > t if and only if r < f (1 / t^2 - 1)^(1 / 2n)
        limit = int(cutoff * (THRESHOLD**-2 - 1) ** (0.5 / order)) + 1
        reach = int((butterworth(torch.arange(1, limit + 1).float(), order, cutoff) > THRESHOLD).sum())
        offsets = torch.arange(-reach, reach + 1, device=centres.device)
        g = butterworth(offsets.abs().float(), order, cutoff)
        window = (g[:, None] * g[None, :] > THRESHOLD).flatten()  # the same around every centre
        rows, columns = centres[:, :1] + offsets, centres[:, 1:] + offsets  # [B, side]
        within = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        pixels = (rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]).flatten(1)
        return Window(pixels, (within.flatten(1) & window).float(), size)

    def crop(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, P]."""
        return maps.flatten(2).gather(2, self.pixels.unsqueeze(1).expand(-1, maps.shape[1], -1))

    def paste(self, values: Tensor) -> Tensor:
        """[B, P] -> [B, 1, H, W]; pixels outside the window are 0."""
        height, width = self.size
        flat = values.new_zeros(len(values), height * width).scatter_add_(1, self.pixels, values)
        return flat.view(-1, 1, height, width)

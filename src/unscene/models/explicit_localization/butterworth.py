"""The Butterworth window G: about 1 around a centre, then a fast decay (Liu et al., 2019, Section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

THRESHOLD = 0.5  # "giving a hard threshold gives clearer segmentation": w = 1 where G > .5 (Section 2.4)


def butterworth(distance: Tensor, order: float, cutoff: float) -> Tensor:
    """Return G(r, n, f) = 1 / sqrt(1 + (r / f)^(2 n)).

    Args:
        distance: r >= 0 in pixels, of any shape.
        order: n; a larger n decays faster.
        cutoff: f in pixels; G(f) = 1 / sqrt(2).

    Returns:
        Values in (0, 1], in the shape of `distance`.
    """
    return (1 + (distance / cutoff).pow(2 * order)).rsqrt()


@dataclass(frozen=True)
class Window:
    """The P pixels of the square around each centre that holds all pixels with G > .5.

    The weights outside this square are 0, so the mixture needs no other pixel.

    Attributes:
        pixels: [B, P] flat indices into the image; a pixel beyond the border has the index of the nearest one.
        weights: [B, P] w = 1 where G(|i - i_c|) G(|j - j_c|) > .5, else 0; 0 beyond the border.
        size: height and width of the image.
    """

    pixels: Tensor
    weights: Tensor
    size: tuple[int, int]

    @staticmethod
    def around(centres: Tensor, size: tuple[int, int], order: float, cutoff: float) -> Window:
        """Lay the window around centres [B, 2], row and column."""
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
        return (
            values.new_zeros(len(values), height * width)
            .scatter_add_(1, self.pixels, values)
            .view(-1, 1, height, width)
        )

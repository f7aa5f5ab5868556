"""A grey square in front of a scene: the pixels behind it belong to no object.

Dittadi et al. (ICML 2022, arXiv 2107.00637) test with such a square, and with the crop of `centred`. Theirs takes
the one of five random positions where it hides least; here all positions are as likely.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unscene.data.hashed_random import uniform_draws

CropShare = Annotated[float, Field(ge=0.25, le=1)]  # of the side; the work for a sprite grows as 1 / share ** 2
OccluderShare = Annotated[float, Field(ge=0, le=1)]

_STREAM = 0x8F63_6C75_6465_7273  # with its top bit set it differs from every data set's seed, below 2**63


def occlude(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], seed: int, indices: NDArray[np.int64], share: float, grey: int
) -> None:
    """Paint a square into images and label maps, in place; its pixels become background (label 0).

    Its position is uniform among those within the image, and comes from (seed, index) alone, by random numbers of its
    own: the scene behind it is the one without an occluder.

    Args:
        images: [B, size, size, 3].
        labels: [B, size, size].
        seed: of the data set, 0 .. 2**63 - 1.
        indices: [B] the samples.
        share: side of the square as a share of the image's side, 0 .. 1; 0 is none.
        grey: 0..255.
    """
    size = labels.shape[1]
    side = round(share * size)
    corner = (uniform_draws(seed ^ _STREAM, indices, 2) * (size - side + 1)).astype(np.int64)  # [B, 2] x and y
    along = np.arange(size) - corner[..., None]  # [B, 2, size] from the square's first column, and row
    within = (along >= 0) & (along < side)
    hidden = within[:, 1, :, None] & within[:, 0, None, :]  # [B, size, size], rows first
    images[hidden] = grey
    labels[hidden] = 0


def centred(view: tuple[float, float, float, float], share: float) -> tuple[float, float, float, float]:
    """The part `x1 y1 x2 y2` in the middle of a view that has `share` of its width and height."""
    x1, y1, x2, y2 = view
    across, down = (x2 - x1) * (1 - share) / 2, (y2 - y1) * (1 - share) / 2
    return x1 + across, y1 + down, x2 - across, y2 - down

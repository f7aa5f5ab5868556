"""Images and label maps at two thirds of their size, in whole numbers.

The centre of pixel d of the smaller image lies at 1.5 (d + .5) - .5 = 1.5 d + .25 of the larger one. So three pixels
a b c become two, along the rows and then along the columns:

    bilinear   (3 a + b) / 4 and (b + 3 c) / 4        no low-pass; PyTorch's `interpolate`, TensorFlow 2's `resize`
    nearest    a and c                                PyTorch's "nearest-exact", TensorFlow 2's `resize`
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unscene.errors import ShapeError


def downscale_bilinear(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image [3 H, 3 W, C] as [2 H, 2 W, C], rounded, halves up.

    Raises:
        ShapeError: height or width is no multiple of 3.
    """
    _check_threes(*image.shape[:2])
    height, width, channels = image.shape
    rows = _blended(image.astype(np.uint16).reshape(height // 3, 3, width * channels))  # 4 times the values
    both = _blended(rows.reshape(-1, 3, channels))  # 16 times; the columns, three by three
    return ((both + 8) >> 4).astype(np.uint8).reshape(height // 3 * 2, width // 3 * 2, channels)


def _blended(threes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """[N, 3, C] to [N, 2, C], 4 times the values."""
    twos = np.empty((len(threes), 2, threes.shape[2]), np.uint16)
    np.add(3 * threes[:, 0], threes[:, 1], out=twos[:, 0])
    np.add(threes[:, 1], 3 * threes[:, 2], out=twos[:, 1])
    return twos


def downscale_nearest(maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return maps [..., 3 H, 3 W], whose values must not be mixed, as [..., 2 H, 2 W].

    Raises:
        ShapeError: height or width is no multiple of 3.
    """
    *others, height, width = maps.shape
    _check_threes(height, width)
    outer = maps.reshape(*others, height // 3, 3, width // 3, 3)[..., ::2, :, ::2]
    return outer.reshape(*others, height // 3 * 2, width // 3 * 2)


def _check_threes(height: int, width: int) -> None:
    if height % 3 or width % 3:
        raise ShapeError(f"height and width must be multiples of 3, but are {height} and {width}.")

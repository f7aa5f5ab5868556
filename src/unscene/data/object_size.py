"""A first look at large images: how large are the objects?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_laplace, maximum_filter

from unscene.errors import DataError

_WINDOW = 512  # pixels of a side
_STEP = 4  # between the reductions of an image
_SCALES = 20
_SMALLEST = 3.0  # pixels of a diameter, in the reduced image
_STRONG = 0.4  # of the strongest response of a window
_FAINTEST = 1.0  # response in grey levels that counts


@dataclass(frozen=True)
class ObjectSize:
    """A diameter in pixels, half of the blobs lie between `low` and `high`, and how many blobs were seen."""

    diameter: float
    low: float
    high: float
    blobs: int

    @property
    def is_sure(self) -> bool:
        """Enough blobs, and half of them within a factor of 1.6."""
        return self.blobs >= 10 and self.high <= 1.6 * self.low


def propose_object_size(images: Iterable[NDArray[np.uint8]]) -> ObjectSize:
    """Return the usual diameter of the blobs of images [H, W, 3] uint8, from 3 pixels to a quarter of the side.

    The scale-normalised Laplacian of Gaussians, s^2 |LoG_s * x|, of a disk of diameter d is extreme at its centre for
    s = d / sqrt(8) (Lindeberg, 1998). The blobs are the maxima over position and scale, the strongest first, of which
    less than half is covered by stronger ones: so a cluster is not one large object. The diameter is their median,
    weighted by area, so texture within objects counts little. Bright and dark blobs count alike.

    A large image is searched at several reductions, in the window of the most contrast. The reduction counts whose
    blobs have the most contrast on the most area. DataError: no image shows any blob.
    """
    found: list[tuple[float, float]] = []  # diameter in the image's pixels, share of the window
    for image in images:
        grey = Image.fromarray(image).convert("L")
        seen = [(_blobs(window), window.size, reduction) for window, reduction in _windows(grey)]
        blobs, area, reduction = max(seen, key=lambda blobs: sum(r * d**2 for d, r in blobs[0]) / blobs[1])
        found += [(diameter * reduction, diameter**2 / area) for diameter, _ in blobs]
    if not found:
        raise DataError("the images show no object of a clear size.")
    sizes, weights = np.array(sorted(found)).T
    upto = np.cumsum(weights) / weights.sum()
    low, middle, high = (float(sizes[np.searchsorted(upto, share)]) for share in (0.25, 0.5, 0.75))
    return ObjectSize(middle, low, high, len(found))


def _windows(grey: Image.Image) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Of each reduction of an image the window of the most contrast, until one window holds all of the image."""
    reduction = 1
    while True:
        reduced = np.asarray(grey.reduce(reduction), np.float32)
        starts = [range(0, max(1, side - _WINDOW // 2), _WINDOW) for side in reduced.shape]
        windows = [reduced[y : y + _WINDOW, x : x + _WINDOW] for y in starts[0] for x in starts[1]]
        yield max(windows, key=np.std), reduction
        if len(windows) == 1:
            return
        reduction *= _STEP


def _blobs(window: NDArray[np.float32]) -> list[tuple[float, float]]:
    """The diameter and the response of each blob."""
    diameters = np.geomspace(_SMALLEST, max(2 * _SMALLEST, min(window.shape) / 4), _SCALES)
    stack = np.stack([s**2 * np.abs(gaussian_laplace(window, s)) for s in diameters / np.sqrt(8)])  # [scale, y, x]
    peak = (stack == maximum_filter(stack, 3)) & (stack > max(_STRONG * stack.max(), _FAINTEST))
    peak[[0, -1]] = False  # their true scale may lie outside
    scales, rows, columns = np.nonzero(peak)
    strengths = stack[scales, rows, columns]
    covered = np.zeros(window.shape, np.bool_)
    blobs = []
    for index in np.argsort(-strengths, kind="stable"):
        radius, y, x = diameters[scales[index]] / 2, rows[index], columns[index]
        top, left = max(0, int(y - radius)), max(0, int(x - radius))
        part = covered[top : int(y + radius) + 2, left : int(x + radius) + 2]
        down, right = np.ogrid[: part.shape[0], : part.shape[1]]
        disk = (down + top - y) ** 2 + (right + left - x) ** 2 <= radius**2
        if part[disk].mean() < 0.5:
            part |= disk
            blobs.append((float(2 * radius), float(strengths[index])))
    return blobs

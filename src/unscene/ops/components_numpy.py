"""Connected components of many binary images on a CPU: as much work as the images have runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from unscene.errors import check_shape


def connected_boxes(planes: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bounding boxes of the 8-connected parts of many binary images.

    Works on runs (unbroken stretches of a row) instead of pixels: runs of neighbouring rows that touch are the edges of
    one graph over all images, whose components are the parts.

    Args:
        planes: [P, H, W] bool.

    Returns:
        plane: [n] int64, the image of each part, rising.
        boxes: [n, 4] int64 pixels, end exclusive.

    Raises:
        ShapeError: `planes` has other axes.
    """
    size = check_shape(planes, "P H W", "planes")
    height, width = size["H"] + 1, size["W"] + 1  # an empty row above and an empty column before each image
    padded = np.zeros(size["P"] * height * width + 1, dtype=np.bool_)
    padded[:-1].reshape(size["P"], height, width)[:, 1:, 1:] = planes
    changes = np.flatnonzero(padded[1:] != padded[:-1]) + 1
    starts, ends = changes[::2], changes[1::2]
    if len(starts) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.int64)
    part = _touching_runs(starts, ends, width)
    by_part = np.argsort(part, kind="stable")
    starts, ends = starts[by_part], ends[by_part]
    first = np.flatnonzero(
        np.diff(part[by_part], prepend=-1)
    )  # each part's first run is its topmost, the last its lowest
    last = np.append(first[1:], len(starts)) - 1
    row, column = np.divmod(starts, width)
    x1 = np.minimum.reduceat(column, first) - 1
    x2 = np.maximum.reduceat(column + ends - starts, first) - 1
    plane, y1 = np.divmod(row[first], height)
    y2 = row[last] % height
    return plane, np.stack([x1, y1 - 1, x2, y2], axis=1)


def _touching_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], width: int) -> NDArray[np.int32]:
    """[R] the part to which each run [start, end) belongs; the positions are those of rows of `width`, end to end."""
    first = np.searchsorted(ends, starts + width)  # the first run of the next row that ends at or after our start ...
    past = np.searchsorted(starts, ends + width, side="right")  # ... and all that start at or before our end touch us
    degree = past - first
    before = np.concatenate([[0], np.cumsum(degree)])
    below = np.arange(before[-1]) + np.repeat(first - before[:-1], degree)
    graph = csr_array((np.ones(len(below), dtype=np.int8), below, before), shape=(len(starts), len(starts)))
    return np.asarray(connected_components(graph, directed=False)[1])

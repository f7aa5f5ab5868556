"""What every data source shares: checked indices, ranges of a data set, and boxes of label maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from unscene.errors import DataError, ShapeError, check_shape


def checked_indices(indices: Sequence[int] | NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Return the indices [B] of a batch as int64, in 0 .. `count` - 1; any order, duplicates and an empty row are fine.

    Raises:
        ShapeError: `indices` is not one row of whole numbers.
        DataError: an index is outside the data set.
    """
    found = np.asarray(indices)
    check_shape(found, "B", "indices")
    if found.size and found.dtype.kind not in "iu":
        raise ShapeError(f"indices must be whole numbers, but are {found.dtype}.")
    outside = found[(found < 0) | (found >= count)]
    if outside.size:
        raise DataError(f"sample {outside[0]} was asked for, but there are {count}: give indices 0 to {count - 1}.")
    return found.astype(np.int64)


def resolve_range(first: int, count: int, size: int, data: str) -> range:
    """Return the indices that the settings `first` and `count` name in a data set of `size` samples.

    A `first` below 0 counts from the end. A `count` of 0 takes all from `first` on, one below 0 all but so many at the
    end. `data` is the data set and what it has, for the message: "FILE has 30 scenes".

    Raises:
        DataError: the data set has too few.
    """
    start = first + (size if first < 0 else 0)
    length = count + (size - start if count <= 0 else 0)
    if not 0 <= start < start + length <= size:
        raise DataError(
            f"{data}, too few for first {first:,} and count {count:,}: lower data.count, validation.count and "
            "test.count, or give more data."
        )
    return range(start, start + length)


def boxes_of_labels(labels: NDArray[np.integer], num_objects: int) -> NDArray[np.float32]:
    """Return the tightest boxes around the pixels of every label, for label maps [B, H, W] (0 is the background).

    Returns:
        [B, M, 4] float32 `x1 y1 x2 y2` in pixels, end exclusive, M is `num_objects`. Label `m + 1` goes to row `m`;
        a label without a pixel has a zero row, labels above M are left out.

    Raises:
        ShapeError: `labels` has not three axes, or does not hold whole numbers.
    """
    batch = check_shape(labels, "B H W", "labels")["B"]
    if labels.dtype.kind not in "iu":
        raise ShapeError(f"labels must be whole numbers, but are {labels.dtype}. Convert them with labels.astype(int).")
    boxes = np.zeros((batch, num_objects, 4), np.float32)
    for label_map, rows in zip(labels, boxes, strict=True):
        for row, found in zip(rows, find_objects(label_map, num_objects), strict=False):
            if found is not None:
                row[:] = found[1].start, found[0].start, found[1].stop, found[0].stop
    return boxes

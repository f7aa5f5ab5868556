"""The samples of a batch or a recipe, checked against the size of the data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError, ShapeError, check_shape


def checked_indices(indices: Sequence[int] | NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Return the indices as an array.

    Args:
        indices: [B] whole numbers in any order, duplicates allowed; an empty row is an empty batch.
        count: size of the data set.

    Returns:
        [B] int64 in 0 .. count - 1.

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
    """Return the indices that the settings `first` and `count` name in a data set.

    Args:
        first: index of the first; below 0 it counts from the end.
        count: number of samples; 0 takes all from `first` on, below 0 all but so many at the end.
        size: of the data set.
        data: the data set and what it has, for the message: "FILE has 30 scenes".

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

"""Which samples a batch or a recipe asks for, checked against the size of the data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError, ShapeError, check_shape


def checked_indices(indices: Sequence[int] | NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Return the indices as an array.

    Args:
        indices: [B] whole numbers in any order, duplicates allowed; none at all is an empty batch.
        count: size of the data set.

    Returns:
        [B] int64, each in 0 .. count - 1.

    Raises:
        ShapeError: `indices` is not one row of whole numbers.
        DataError: an index is outside the data set.
    """
    wanted = np.asarray(indices)
    check_shape(wanted, "B", "indices")
    if wanted.size and wanted.dtype.kind not in "iu":
        raise ShapeError(f"indices must be whole numbers, but are {wanted.dtype}.")
    outside = wanted[(wanted < 0) | (wanted >= count)]
    if outside.size:
        raise DataError(f"sample {outside[0]} was asked for, but there are {count}: give indices 0 to {count - 1}.")
    return wanted.astype(np.int64)


def stretch(first: int, count: int, held: int) -> range | None:
    """Return the samples that `first` and `count` name of a data set; None where it has too few.

    Args:
        first: index of the first; below 0 it counts from the end.
        count: of them; 0 takes all from `first` on, below 0 all but so many at the end.
        held: size of the data set.
    """
    start = first + (held if first < 0 else 0)
    length = count + (held - start if count <= 0 else 0)
    return range(start, start + length) if 0 <= start < start + length <= held else None

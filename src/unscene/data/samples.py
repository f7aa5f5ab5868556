"""What data sources share: generated scenes, checked indices, and ranges of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError, ShapeError, check_shape


class _Counted(Protocol):
    @property
    def count(self) -> int: ...


_Settings = TypeVar("_Settings", bound=_Counted)


class GeneratedScenes(Generic[_Settings]):
    """Scenes that are drawn when they are needed; each follows from the seed and its index."""

    Settings: ClassVar[Any]

    def __init__(self, settings: _Settings | None = None) -> None:
        self.settings: _Settings = settings or self.Settings()

    def __len__(self) -> int:
        return self.settings.count


def checked_indices(indices: Sequence[int] | NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Return the indices [B] of a batch as int64, in 0 .. `count` - 1; any order, duplicates and an empty row are fine.

    ShapeError: `indices` is not one row of whole numbers. DataError: an index is outside the data set.
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
    end. `data` is the data set and what it has, for the message: "FILE has 30 scenes". DataError: the data set has too
    few.
    """
    start = first + (size if first < 0 else 0)
    length = count + (size - start if count <= 0 else 0)
    if not 0 <= start < start + length <= size:
        raise DataError(
            f"{data}, too few for first {first:,} and count {count:,}: lower data.count, validation.count and "
            "test.count, or give more data."
        )
    return range(start, start + length)

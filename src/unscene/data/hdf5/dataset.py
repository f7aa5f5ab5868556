"""A range of an HDF5 file as a data source, so that one file holds a training and a test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from unscene.data.hdf5.reader import SceneStore
from unscene.data.samples import checked_indices, resolve_range
from unscene.errors import DataError
from unscene.settings import NonEmptyText, settings_dataclass


@settings_dataclass
class SceneFileSettings:
    """Which scenes of which file.

    Attributes:
        path: of an HDF5 file that `unscene generate` or `unscene convert` wrote, or of a published one.
        first: index of the first scene; below 0 it counts from the end.
        count: number of scenes; 0 takes all from `first` on, below 0 all but so many at the end.
        size: height and width that the images must have; 0 takes them as they are.

    Raises:
        RecipeError: a value is impossible.
    """

    path: NonEmptyText
    first: int = 0
    count: int = 0
    size: NonNegativeInt = 64


class SceneFile:
    """`SceneStore`, from `first` on.

    Raises:
        DataError: the file is unusable, has too few scenes, or images of another size.
    """

    Settings = SceneFileSettings

    def __init__(self, settings: SceneFileSettings) -> None:
        self.settings = settings
        self.store = SceneStore(settings.path)
        stored = len(self.store)
        self._range = resolve_range(settings.first, settings.count, stored, f"{settings.path} has {stored:,} scenes")
        if settings.size and self.store.image_size != (settings.size, settings.size):
            height, width = self.store.image_size
            raise DataError(
                f"{settings.path} has images of {height} x {width} pixels, but the recipe's size is {settings.size}: "
                f"set --data.size {height}, or write the file in that size."
            )

    @property
    def object_names(self) -> tuple[str, ...]:
        """The names of labels 1, 2 ..., where the file has them."""
        names = self.store.attributes.get("object_names", ())
        return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()

    def __len__(self) -> int:
        return len(self._range)

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """As `SceneStore.batch`, counted from `first`."""
        return self.store.batch(checked_indices(indices, len(self)) + self._range.start)

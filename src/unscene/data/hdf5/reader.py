"""Reads scenes from an HDF5 file with one sample a chunk, so that reading a sample at random costs one chunk.

    image     [N, H, W, 3]  uint8                   the only required one
    mask      [N, H, W]     uint8 label map, 0 is the background; published files have [N, H, W, 1] or one mask for
                            each of K entries, the background first: [N, K, H, W, 1] or [N, H, W, K, 1]; all are read
    boxes     [N, M, 4]     float32 `x1 y1 x2 y2`, end exclusive; row `m` belongs to label `m + 1`
    factors   [N, ...]      one small data set each (`shape`, `scale`, ...)

Attributes of the file: `source`, `seed`, `generator_version`, `settings` (JSON), `unscene_version`, `complete`, and
`object_names` (JSON) where labels mean the same object in every image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from unscene.data.samples import boxes_of_labels, checked_indices, resolve_range
from unscene.errors import DataError
from unscene.settings import NonEmptyText, settings_dataclass

_MAX_FACTOR_BYTES = 4096  # a sample; smaller data sets are kept in memory, larger ones are not factors


class SceneStore:
    """Scenes of an HDF5 file, read when they are needed.

    The constructor checks the file. Every process that reads it opens it again, so a store can be pickled and used in
    forked or spawned DataLoader workers.

    Attributes:
        attributes: attributes of the file, `settings` as a dictionary.
        image_size: (H, W).

    Raises:
        DataError: the file is missing, is not HDF5, was never completed, or an array in it is missing or of another
            shape or type.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._open: tuple[int, h5py.File] | None = None  # process id and handle: a handle must not cross a fork
        try:
            with h5py.File(self.path, "r") as file:
                _check_datasets(file, self.path)
                self.attributes = _read_attributes(file)
                self._count, height, width = file["image"].shape[:3]
                self.image_size = (int(height), int(width))
                self._has_mask = "mask" in file
                self._rows = {name: data[()] for name, data in file.items() if _is_factor(name, data, self._count)}
        except FileNotFoundError:
            raise DataError(f"{path} does not exist. Check the name, or write the file first.") from None
        except (OSError, RuntimeError, KeyError) as error:
            raise DataError(f"{path} cannot be read as HDF5 ({error}). Download or generate it again.") from error

    def __len__(self) -> int:
        return int(self._count)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Read samples.

        Returns:
            `image` [B, H, W, 3] uint8; if the file has masks, `labels` [B, H, W] uint8 and `boxes` [B, M, 4] float32
            (if the file has none, computed from the masks; M is the largest label of the batch); the factors [B, ...].

        Raises:
            DataError: the file is damaged there.
        """
        indices = checked_indices(indices, len(self))
        sample = {"image": self._read("image", indices)}
        if self._has_mask:
            sample["labels"] = self._as_labels(self._read("mask", indices))
        sample.update({name: rows[indices] for name, rows in self._rows.items()})
        if self._has_mask and "boxes" not in sample:
            sample["boxes"] = boxes_of_labels(sample["labels"], int(sample["labels"].max(initial=0)))
        return sample

    def close(self) -> None:
        """Close the file in this process; reading opens it again."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _file(self) -> h5py.File:
        if self._open is not None and self._open[0] != os.getpid():
            self.close()  # inherited through a fork: HDF5 would hand out the parent's handle again
        if self._open is None:
            self._open = (os.getpid(), h5py.File(self.path, "r"))
        return self._open[1]

    def _read(self, name: str, indices: NDArray[np.int64]) -> NDArray:
        sample = ""
        try:
            dataset = self._file()[name]
            values = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
            for row, index in enumerate(indices.tolist()):
                sample = f" of sample {index:,}"
                values[row] = dataset[index]
        except (OSError, RuntimeError, KeyError) as error:
            hint = "The file is damaged or was removed: download or generate it again."
            raise DataError(f"{self.path}: '{name}'{sample} cannot be read ({error}). {hint}") from error
        return values

    def _as_labels(self, mask: NDArray) -> NDArray[np.uint8]:
        if mask.ndim == 5:
            return np.asarray(mask[..., 0].argmax(axis=_entry_axis(mask.shape, self.image_size)), np.uint8)
        labels = mask[..., 0] if mask.ndim == 4 else mask
        if labels.dtype != np.uint8 and labels.size and (labels.min() < 0 or labels.max() > 255):
            found = f"labels from {labels.min()} to {labels.max()}"
            raise DataError(f"{self.path}: 'mask' has {found}; expected 0 (background) to 255.")
        return labels.astype(np.uint8, copy=False)


@settings_dataclass
class SceneFileSettings:
    """A range of the scenes of an HDF5 file, so that one file holds a training and a test set.

    Attributes:
        path: path of a file that `unscene generate` or `unscene convert` wrote, or of a published one.
        first: index of the first scene; below 0 it counts from the end.
        count: number of scenes; 0 takes all from `first` on, below 0 all but so many at the end.
        size: height and width that the images must have; 0 allows any.
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
            sizes = f"images of {height} x {width} pixels, but the recipe's size is {settings.size}"
            raise DataError(f"{settings.path} has {sizes}: set --data.size {height}, or write the file in that size.")

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


def _check_datasets(file: h5py.File, path: Path) -> None:
    if not file.attrs.get("complete", True):
        raise DataError(f"{path} was never completed. Generate or convert it again.")
    if not isinstance(file.get("image"), h5py.Dataset):
        found = ", ".join(file) or "nothing"
        raise DataError(f"{path} has no data set 'image', only: {found}. Expected 'image' [N, H, W, 3] uint8.")
    for name in ("mask", "boxes"):
        if name in file and not isinstance(file[name], h5py.Dataset):
            raise DataError(f"{path}: '{name}' must be one data set, but is a group. Store it as one array.")
    image, mask, boxes = file["image"], file.get("mask"), file.get("boxes")
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] != 3 or 0 in image.shape:
        _refuse(path, image, "[N, H, W, 3] uint8", "Convert the images to 0..255, channels last.")
    N, H, W, _ = image.shape
    if mask is not None and not (mask.dtype.kind in "iu" and _holds_labels(mask.shape, (N, H, W))):
        _refuse(path, mask, f"[{N}, {H}, {W}] uint8", "Store a label map: 0 for the background, 1.. for the objects.")
    if boxes is not None and (boxes.dtype != np.float32 or boxes.ndim != 3 or boxes.shape[::2] != (N, 4)):
        _refuse(path, boxes, f"[{N}, M, 4] float32", "Remove it to have the boxes computed from the masks.")


def _holds_labels(shape: tuple[int, ...], images: tuple[int, int, int]) -> bool:
    if len(shape) == 5:
        axis = _entry_axis(shape, images[1:])
        return shape[0] == images[0] and axis is not None and 1 <= shape[axis] <= 256
    return shape in (images, (*images, 1))


def _entry_axis(shape: tuple[int, ...], size: tuple[int, ...]) -> int | None:
    """The axis of the entries in masks [N, K, H, W, 1] or [N, H, W, K, 1]; None when they are neither."""
    if shape[4] != 1:
        return None
    return 1 if shape[2:4] == size else 3 if shape[1:3] == size else None


def _refuse(path: Path, dataset: h5py.Dataset, expected: str, hint: str) -> None:
    found = f"{list(dataset.shape)} {dataset.dtype}"
    raise DataError(f"{path}: '{dataset.name.lstrip('/')}' must be {expected}, but is {found}. {hint}")


def _is_factor(name: str, dataset: Any, count: int) -> bool:
    """Boxes and factors: the data sets with one small numeric row a sample."""
    if not isinstance(dataset, h5py.Dataset) or name in ("image", "mask", "labels"):
        return False
    small = dataset.nbytes <= count * _MAX_FACTOR_BYTES
    return small and dataset.shape[:1] == (count,) and dataset.dtype.kind in "biuf"


def _read_attributes(file: h5py.File) -> dict[str, Any]:
    attributes = {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}
    for name in ("settings", "object_names"):
        if isinstance(attributes.get(name), str):
            with suppress(json.JSONDecodeError):  # those of other programs stay as they are
                attributes[name] = json.loads(attributes[name])
    return attributes

"""Reads scenes from an HDF5 file with one sample a chunk, so that reading a sample at random costs one chunk.

    image     [N, H, W, 3]  uint8                   the only required one
    mask      [N, H, W]     uint8 label map, 0 is the background; published files have [N, H, W, 1] or one mask for
                            each of K entries, the background first: [N, K, H, W, 1] or [N, H, W, K, 1]; all are read
    boxes     [N, M, 4]     float32 `x1 y1 x2 y2`, end exclusive; row `m` belongs to label `m + 1`
    factors   [N, ...]      one small data set each (`shape`, `scale`, ...)

Attributes of the file: `source`, `seed`, `generator_version`, `settings` (JSON), `unscene_version`, `complete`,
`arrays` (JSON: the names of all data sets), and `object_names` (JSON) where labels mean the same object in every image,
`clip_length` where the samples are frames of clips.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from unscene.data.hdf5.opening import check_readable, local_dataset, open_file, read_rows, reading
from unscene.data.samples import checked_indices, resolve_range
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import NonEmptyText, settings_dataclass

_MAX_FACTOR_BYTES = 4096  # a sample; smaller data sets are kept in memory, larger ones are not factors
_COMPARED = 16  # samples whose values are checked at once; boxes of the others are when they are read
_log = logging.getLogger(__name__)


class SceneStore:
    """Scenes of an HDF5 file, read when they are needed.

    The constructor checks the file. Every process that reads it opens it again, so a store can be pickled and used in
    forked or spawned DataLoader workers. The log says what the file leaves open: arrays that are no part of a scene,
    missing checksums, boxes that contradict the masks. `attributes` are those of the file, `settings` as a dictionary;
    `image_size` is (H, W). Pixels of the `ignore_label` do not count.

    DataError: the file cannot be opened, was never completed, reaches out to other files, or an array in it is missing,
    incomplete or of another shape or type.
    """

    def __init__(self, path: str | Path, ignore_label: int | None = None) -> None:
        self.path, self.ignore_label = Path(path).absolute(), ignore_label
        self._open: tuple[int, h5py.File] | None = None  # process id and handle: a handle must not cross a fork
        self._warned: set[str] = set()
        with open_file(self.path) as file:
            self.attributes = _read_attributes(file)
            if not self.attributes.get("complete", True):
                raise DataError(f"{self.path} was never completed. Generate or convert it again.")
            listed = self.attributes.get("arrays")
            lost = set(listed) - set(file) if isinstance(listed, list) else set()
            if lost:
                raise DataError(f"{self.path} has lost {sorted(lost)}: it is damaged. Generate or convert it again.")
            datasets = {name: local_dataset(file, name) for name in file}
            used = _datasets_of_scenes(datasets, self.path)
            for dataset in used.values():
                check_readable(dataset)
            self._count, height, width = map(int, used["image"].shape[:3])
            self.image_size = (height, width)
            self._has_mask = "mask" in used
            factors = {name: data for name, data in used.items() if name not in ("image", "mask")}
            self._rows = {name: read_rows(data, 0, self._count) for name, data in factors.items()}
            has_checksums = all(dataset.fletcher32 for dataset in used.values())
        if "boxes" in used and not self._has_mask:
            _check_boxes(self._rows["boxes"], self.path)
        if len(used) < len(datasets):
            self._warn(
                f"has {sorted(set(datasets) - set(used))}, which is not read: only image, mask, boxes and factors are."
            )
        if not has_checksums:
            self._warn("has no checksums (older or of another program): changed values in it cannot be noticed.")
        with suppress(DataError):  # a damaged sample is named when it is asked for
            first = self.batch(range(min(self._count, _COMPARED)))
            if first["image"].max() == 1:
                self._warn("has images of the values 0 and 1, which are nearly black. Multiply them by 255.")
        self.close()

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Read `image` [B, H, W, 3] uint8 and the factors [B, ...]. DataError: the file is damaged there.

        If it has masks also `labels` [B, H, W] uint8 (int16 with an `ignore_label`, whose pixels are -1), and their
        `boxes` [B, M, 4] float32.
        """
        indices = checked_indices(indices, len(self))
        sample = {"image": self._read("image", indices)}
        sample.update({name: rows[indices] for name, rows in self._rows.items()})
        if self._has_mask:
            labels = objects = self._as_labels(self._read("mask", indices))
            if self.ignore_label is not None:
                ignored = labels == self.ignore_label
                objects, labels = np.where(ignored, np.uint8(0), labels), np.where(ignored, np.int16(-1), labels)
            stored = sample.get("boxes", np.zeros((len(labels), 0, 4), np.float32))
            highest = int(objects.max(initial=0))
            sample["boxes"] = boxes_of_labels(objects, max(highest, stored.shape[1]))
            if "boxes" in self._rows:
                self._compare_boxes(stored, sample["boxes"], indices)
            if highest == 255 and not (labels == 254).any():
                self._warn("counts label 255 as an object. If its pixels do not count: --data.ignore_label 255.")
            sample["labels"] = labels
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
        with reading(self.path):
            dataset = self._file()[name]
            values = np.empty((len(indices), *dataset.shape[1:]), dataset.dtype)
        for row, index in enumerate(indices.tolist()):
            with reading(self.path, f": '{name}' of sample {index:,}"):
                values[row] = read_rows(dataset, index, index + 1)[0]
        return values

    def _as_labels(self, mask: NDArray) -> NDArray[np.uint8]:
        if mask.ndim == 5:
            return np.asarray(mask[..., 0].argmax(axis=_entry_axis(mask.shape, self.image_size)), np.uint8)
        labels = mask[..., 0] if mask.ndim == 4 else mask
        if labels.dtype != np.uint8 and labels.size and (labels.min() < 0 or labels.max() > 255):
            found = f"labels from {labels.min()} to {labels.max()}"
            raise DataError(f"{self.path}: 'mask' has {found}; expected 0 (background) to 255.")
        return labels.astype(np.uint8, copy=False)

    def _compare_boxes(self, stored: NDArray, boxes: NDArray[np.float32], indices: NDArray[np.int64]) -> None:
        """Log the first stored box that is not the one around its mask."""
        padded = np.pad(stored, ((0, 0), (0, boxes.shape[1] - stored.shape[1]), (0, 0)))
        wrong = np.argwhere(~(np.abs(padded - boxes) <= 0.5).all(axis=2))
        if len(wrong):
            scene, row = wrong[0]
            found, expected = padded[scene, row], boxes[scene, row]
            forms = {
                " Their ends look inclusive.": expected - [0, 0, 1, 1],
                " They look like x y width height.": [*expected[:2], *(expected[2:] - expected[:2])],
            }
            looks = next((words for words, form in forms.items() if np.allclose(found, form, atol=0.5)), "")
            self._warn(
                f"has 'boxes' that contradict 'mask'; they are computed from 'mask'.{looks} Object {row + 1} of "
                f"sample {indices[scene]} has {found.tolist()}, and its mask x1 y1 x2 y2 {expected.tolist()}."
            )

    def _warn(self, text: str) -> None:
        if text[:20] not in self._warned:  # once for the store
            self._warned.add(text[:20])
            _log.warning("%s %s", self.path, text)


@settings_dataclass
class SceneFileSettings:
    """A range of the scenes of an HDF5 file, so that one file holds a training and a test set."""

    path: NonEmptyText  # path of a file that `unscene generate` or `unscene convert` wrote, or of a published one
    first: int = 0  # index of the first scene; below 0 it counts from the end
    count: int = 0  # number of scenes; 0 takes all from `first` on, below 0 all but so many at the end
    size: NonNegativeInt = 64  # height and width that the images must have; 0 allows any
    # label of pixels that do not count in any score, for instance 255
    ignore_label: Annotated[int, Field(ge=1, le=255)] | None = None


class SceneFile:
    """`SceneStore`, from `first` on.

    Raises:
        DataError: the file is unusable, has too few scenes, or images of another size.
    """

    Settings = SceneFileSettings

    def __init__(self, settings: SceneFileSettings) -> None:
        self.settings = settings
        self.store = SceneStore(settings.path, settings.ignore_label)
        stored = len(self.store)
        self._range = resolve_range(settings.first, settings.count, stored, f"{settings.path} has {stored:,} scenes")
        if settings.size and self.store.image_size != (settings.size, settings.size):
            height, width = self.store.image_size
            sizes = f"images of {height} x {width} pixels, but the recipe's size is {settings.size}"
            raise DataError(f"{settings.path} has {sizes}: resize them, or take a recipe of their size (--data.size).")

    @property
    def object_names(self) -> tuple[str, ...]:
        """The names of labels 1, 2 ..., where the file has them."""
        names = self.store.attributes.get("object_names", ())
        return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()

    @property
    def clip_length(self) -> int:
        """Number of the frames of a clip; 1 where the file has no clips, or `first` is within one."""
        length = self.store.attributes.get("clip_length", 1)
        return length if isinstance(length, int) and length > 0 and self._range.start % length == 0 else 1

    def __len__(self) -> int:
        return len(self._range)

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """As `SceneStore.batch`, counted from `first`."""
        return self.store.batch(checked_indices(indices, len(self)) + self._range.start)


def _datasets_of_scenes(datasets: Mapping[str, h5py.Dataset | None], path: Path) -> dict[str, h5py.Dataset]:
    """The image, and the mask, boxes and factors that are there, of the right shapes and types."""
    image, mask, boxes = (datasets.get(name) for name in ("image", "mask", "boxes"))
    if image is None:
        found = ", ".join(map(repr, datasets)) or "nothing"
        raise DataError(f"{path} has no data set 'image', only: {found}. Expected 'image' [N, H, W, 3] uint8.")
    for name in ("mask", "boxes"):
        if name in datasets and datasets[name] is None:
            raise DataError(f"{path}: '{name}' must be one data set, but is a group. Store it as one array.")
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] != 3 or 0 in image.shape:
        _refuse(path, image, "[N, H, W, 3] uint8", "Convert the images to 0..255, channels last.")
    N, H, W, _ = image.shape
    if mask is not None and not (mask.dtype.kind in "iu" and _holds_labels(mask.shape, (N, H, W))):
        _refuse(path, mask, f"[{N}, {H}, {W}] uint8", "Store a label map: 0 for the background, 1.. for the objects.")
    if boxes is not None and not (
        boxes.dtype == np.float32 and boxes.ndim == 3 and boxes.shape[::2] == (N, 4) and boxes.shape[1] <= 255
    ):
        _refuse(path, boxes, f"[{N}, M, 4] float32, M up to 255", "Remove it to have boxes computed from masks.")
    given = {name: data for name, data in datasets.items() if data is not None}
    return {name: data for name, data in given.items() if name in ("image", "mask") or _is_factor(name, data, N)}


def _check_boxes(boxes: NDArray[np.float32], path: Path) -> None:
    """Boxes without masks: `x1 y1 x2 y2` with x1 <= x2 and y1 <= y2."""
    wrong = np.argwhere(~(boxes[..., :2] <= boxes[..., 2:]).all(axis=2))
    if len(wrong):
        box = boxes[tuple(wrong[0])].tolist()
        raise DataError(f"{path}: 'boxes' must be x1 y1 x2 y2, but sample {wrong[0][0]} has {box}. Convert them.")


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


def _is_factor(name: str, dataset: h5py.Dataset, count: int) -> bool:
    """Boxes and factors: the data sets with one small numeric row a sample."""
    if name == "labels" or not dataset.shape or dataset.shape[0] != count:
        return False
    return bool(dataset.dtype.kind in "biuf" and dataset.nbytes <= count * _MAX_FACTOR_BYTES)


def _read_attributes(file: h5py.File) -> dict[str, Any]:
    names = [name for name in file.attrs if file.attrs.get_id(name).shape == ()]
    attributes = {name: file.attrs[name] for name in names}
    attributes = {name: value.item() if isinstance(value, np.generic) else value for name, value in attributes.items()}
    for name in ("settings", "object_names", "arrays"):
        if isinstance(attributes.get(name), str):
            with suppress(ValueError, RecursionError):  # those of other programs stay as they are
                attributes[name] = json.loads(attributes[name])
    return attributes

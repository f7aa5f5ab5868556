"""A folder of images with label images as the truth, each at its own size, for scores.

    x.tif  x_label.tif  y.png  y_masks.png         a label image beside each image
    images/x.tif  labels/x.tif                     or in a folder of its own, `labels` or `masks`

A label image has one grey channel of 8, 16 or 32 bits (PNG, TIFF ...): 0 is the background, any other value an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.image_file import ContrastSettings, read_image, read_label_image
from unscene.data.image_folder import ImageFolder, ImageFolderSettings
from unscene.data.samples import checked_indices
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import NonEmptyText, settings_dataclass

_ENDINGS = ("_cp_masks", "_labels", "_label", "_masks", "_mask", ".labels", ".masks")  # of a label image's name


@settings_dataclass
class LabelledFolderSettings:
    """Which images."""

    folder: NonEmptyText  # searched with all folders below it, as in `ImageFolder`
    contrast: ContrastSettings = field(default_factory=ContrastSettings)  # see `ContrastSettings`


class LabelledFolder:
    """The images of a folder and their labels, read when they are needed.

    Attributes:
        names: the image's path below the folder, without its suffix; image `i` of a batch is `names[i]`.
        paths: of each image and its label image.
        own_size: images have sizes of their own, so a batch of several may be impossible.

    Raises:
        DataError: the folder is missing, has no image or two of one name, or an image or a label image stands alone.
    """

    Settings = LabelledFolderSettings
    own_size = True

    def __init__(self, settings: LabelledFolderSettings) -> None:
        self.settings = settings
        root = Path(settings.folder).expanduser()
        if (root / "images").is_dir():
            folders = [root / name for name in ("labels", "masks") if (root / name).is_dir()]
            if not folders:
                raise DataError(f"{root} has a folder 'images', but none of label images. Name it 'labels'.")
            images, labels = _files(root / "images"), label_images(folders[0])
        else:
            files = _files(root)
            labels = {name.removesuffix(end): path for name, path in files.items() if (end := _ending(name))}
            images = {name: path for name, path in files.items() if not _ending(name)}
        for there, missing, what in ((images, labels, "label image"), (labels, images, "image")):
            alone = [there[name] for name in there if name not in missing]
            if alone:
                raise DataError(
                    f"{len(alone):,} of {len(there):,} files in {root} have no {what}, for instance {alone[0]}. Store "
                    "x_label.tif beside x.tif, or both as images/x.tif and labels/x.tif."
                )
        self.names = list(images)
        self.paths = [(images[name], labels[name]) for name in images]

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """Read images of one size.

        Returns:
            `image` uint8 [B, H, W, 3], `labels` int32 [B, H, W], whose objects are numbered from 1 without gaps, and
            `boxes` float32 [B, M, 4].

        Raises:
            DataError: a file cannot be read, an image and its label image differ in size, or the images do.
        """
        rows = [self._read(*self.paths[index]) for index in checked_indices(indices, len(self)).tolist()]
        if len({labels.shape for _, labels in rows}) > 1:
            raise DataError(f"{self.settings.folder}: the images have several sizes. Read them one by one.")
        labels = np.stack([labels for _, labels in rows])
        boxes = boxes_of_labels(labels, int(labels.max(initial=0)))
        return {"image": np.stack([image for image, _ in rows]), "labels": labels, "boxes": boxes}

    def _read(self, image: Path, label_image: Path) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        pixels, labels = read_image(image, contrast=self.settings.contrast), read_label_image(label_image)
        if pixels.shape[:2] != labels.shape:
            (height, width), (rows, columns) = pixels.shape[:2], labels.shape
            raise DataError(f"{image} has {width} x {height} pixels, but {label_image} has {columns} x {rows}.")
        return pixels, renumbered(labels)[0]


def label_images(folder: Path) -> dict[str, Path]:
    """The label images of a folder by name: the path below it without suffix and without an ending like `_label`.

    Of the results of `unscene decompose` the `.labels.tif` alone count, or else the `.masks.png`. DataError: the folder
    has no image, or two of one name.
    """
    found: dict[str, Path] = {}
    for name, path in _files(folder).items():
        key = name.removesuffix(_ending(name))
        if name.endswith(".overlay") or (name.endswith(".masks") and key in found):
            continue
        if key in found:
            raise DataError(f"{folder} has two label images of '{key}': {found[key].name} and {path.name}. Remove one.")
        found[key] = path
    return found


def renumbered(labels: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
    """Return a label map whose labels above 0 are 1, 2 .. without gaps, in their order, and the labels as they were."""
    objects = np.unique(labels[labels > 0])
    return np.where(labels > 0, np.searchsorted(objects, labels) + 1, labels).astype(np.int32), objects


def _files(folder: Path) -> dict[str, Path]:
    """The images of a folder by their path below it without suffix. DataError: two have one name."""
    files: dict[str, Path] = {}
    for path in ImageFolder(ImageFolderSettings(str(folder))).paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise DataError(
                f"{folder} has two images of '{name}': {files[name].name} and {path.name}. Remove one, or rename it."
            )
        files[name] = path
    return files


def _ending(name: str) -> str:
    """The ending that marks a label image's name; empty for none."""
    return next((ending for ending in _ENDINGS if name.endswith(ending)), "")

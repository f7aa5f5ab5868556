"""Oxford Flowers 102 with its segmentations, by ReDO's protocol (Chen, Artieres & Denoyer, 2019).

The images and splits are torchvision's `Flowers102`; the segmentations are a separate archive. Files in `root`:

    flowers-102/jpg/image_00001.jpg   flowers-102/segmim/segmim_00001.jpg   flowers-102/setid.mat   .../imagelabels.mat
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import NonNegativeInt, PositiveInt
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from unscene.data.image_file import read_image
from unscene.data.image_resize import FitKind
from unscene.data.samples import checked_indices, resolve_range
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import NonEmptyText, settings_dataclass

SEGMENTATIONS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102segmentations.tgz"
SEGMENTATIONS_MD5 = "51375996b6c4f367a4b9f4492d7ecef5"
SPLITS = {"train": "tstid", "validation": "valid", "test": "trnid"}  # ReDO trains on the largest part

_CACHE_BYTES = 2**30


@settings_dataclass
class FlowersSettings:
    """Which flowers."""

    root: NonEmptyText = "data"  # folder that holds `flowers-102`, or to download it to
    # as in ReDO, `train` is the file's `tstid` (6,149 images), `validation` its `valid`, `test` its `trnid` (1,020
    # each)
    split: Literal["train", "validation", "test"] = "train"
    count: NonNegativeInt = 0  # number of images, from the first; 0 takes all
    size: PositiveInt = 128  # side of the square, in pixels; see `middle_square`
    # Which pixels of a segmentation are background. `redo` (ReDO's rule): red or green is 0 or blue is 254. `distance`:
    # within 60 of (0, 0, 254), which JPEG compression disturbs less.
    mask: Literal["redo", "distance"] = "redo"
    download: bool = False  # download missing files: 345 MB of images and 203 MB of segmentations
    fit: ClassVar[FitKind] = "crop"  # how `decompose` fits other images, see `fit_image`


class Flowers:
    """Flowers and their masks: label 1 is the flower, 0 the background. Fitted images are kept in memory, up to 1 GiB.

    Raises:
        DataError: files are missing, damaged or too few.
    """

    Settings = FlowersSettings

    object_names = ("flower",)

    def __init__(self, settings: FlowersSettings) -> None:
        self.settings = settings
        self.folder = Path(settings.root).expanduser() / "flowers-102"
        if settings.download:
            download_flowers(Path(settings.root).expanduser())
        ids = _ids(self.folder, settings.split)
        self.ids = ids[resolve_range(0, settings.count, len(ids), f"flowers: {settings.split} has {len(ids):,} images")]
        self._cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}  # a spawned worker fills its own

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """Return image uint8 [B, size, size, 3], labels uint8 [B, size, size] and boxes float32 [B, 1, 4]."""
        indices, size = checked_indices(indices, len(self)), self.settings.size
        image = np.empty((len(indices), size, size, 3), np.uint8)
        labels = np.empty((len(indices), size, size), np.uint8)
        for row, number in enumerate(self.ids[indices].tolist()):
            image[row], labels[row] = self._pair(number)
        return {"image": image, "labels": labels, "boxes": boxes_of_labels(labels, 1)}

    def _pair(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if number in self._cache:
            return self._cache[number]
        image = read_image(self.folder / "jpg" / f"image_{number:05d}.jpg")
        segmentation = read_image(self.folder / "segmim" / f"segmim_{number:05d}.jpg")
        if image.shape != segmentation.shape:
            sizes = [f"{width} x {height}" for height, width, _ in (image.shape, segmentation.shape)]
            message = f"flowers: image {number} has {sizes[0]} pixels, its segmentation {sizes[1]}."
            raise DataError(f"{message} Download both again.")
        size = self.settings.size
        pair = middle_square(image, size), middle_square(flower_mask(segmentation, self.settings.mask), size)
        if (len(self._cache) + 1) * (pair[0].nbytes + pair[1].nbytes) <= _CACHE_BYTES:
            self._cache[number] = pair
        return pair


def flower_mask(segmentation: NDArray[np.uint8], rule: str = "redo") -> NDArray[np.uint8]:
    """Return 1 where a segmentation [H, W, 3] shows the flower, else 0; see `FlowersSettings.mask`."""
    red, green, blue = (segmentation[..., channel].astype(np.float32) for channel in range(3))
    if rule == "redo":
        background = (red == 0) | (green == 0) | (blue == 254)
    else:
        background = red**2 + green**2 + (blue - 254) ** 2 <= 60**2
    return np.asarray(~background, np.uint8)


def middle_square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize [H, W] or [H, W, 3] until the shorter side is `size`, and cut the middle square, as ReDO does.

    Every pixel has the value of the nearest pixel: values are never mixed, neither in images nor in masks.
    """
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    scaled = (int(size * width / shorter), int(size * height / shorter))  # cut to whole pixels, as torchvision does
    resized = np.asarray(Image.fromarray(pixels).resize(scaled, Image.Resampling.NEAREST))
    top, left = round((scaled[1] - size) / 2), round((scaled[0] - size) / 2)
    return resized[top : top + size, left : left + size]


def download_flowers(root: Path) -> None:
    """Download images, splits and segmentations, with their checksums; existing files stay."""
    from torchvision.datasets import Flowers102
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        Flowers102(str(root), download=True)
        if not (root / "flowers-102" / "segmim").is_dir():
            download_and_extract_archive(SEGMENTATIONS, str(root / "flowers-102"), md5=SEGMENTATIONS_MD5)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the Oxford Flowers cannot be downloaded to {root}: {error}. Check the connection and the disk, or get "
            f"102flowers.tgz, imagelabels.mat, setid.mat and {SEGMENTATIONS} elsewhere and unpack them in flowers-102."
        ) from error


def _ids(folder: Path, split: str) -> NDArray[np.int64]:
    missing = [name for name in ("jpg", "segmim", "setid.mat") if not (folder / name).exists()]
    if missing:
        raise DataError(
            f"the Oxford Flowers are not in {folder}: {', '.join(missing)} is missing. Pass --data.download true to "
            "download them (550 MB), or name the folder that holds flowers-102 with --data.root."
        )
    try:
        return np.asarray(loadmat(folder / "setid.mat")[SPLITS[split]]).ravel().astype(np.int64)
    except (OSError, ValueError, KeyError, TypeError, MatReadError) as error:
        raise DataError(f"{folder / 'setid.mat'} cannot be read ({error}). Download it again.") from error

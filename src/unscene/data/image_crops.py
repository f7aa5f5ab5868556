"""Random crops of a folder's large images: any crop follows from the seed and its index alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from unscene.data.image_file import ContrastSettings, image_size, read_image, warn_once
from unscene.data.image_folder import ImageFolder, ImageFolderSettings, skip_damaged_hint
from unscene.data.samples import checked_indices
from unscene.errors import DataError, RecipeError
from unscene.settings import NonEmptyText, settings_dataclass

_CACHE_BYTES = 2**30

_log = logging.getLogger(__name__)


@settings_dataclass
class ImageCropsSettings:
    """Which images, and how crops are taken from them.

    Attributes:
        folder: as in `ImageFolderSettings`, like `skip_damaged`, `frames` and `contrast`.
        size: side of a crop in pixels, as the model sees it.
        crop: side of a crop in the image's pixels, before `zoom`. `auto`: `recipe_to_train` chooses it.
        object_size: usual diameter of an object in the image's pixels; see `recipe_to_train`.
        count: crops in an epoch.
        seed: another seed gives other crops.
        zoom: least and greatest factor of a crop's side. Each crop has its own, evenly in its logarithm.
        flips: mirror half of the crops from left to right.
        turns: turn the crops by 0, 90, 180 or 270 degrees.
    """

    folder: NonEmptyText
    size: PositiveInt = 64
    crop: PositiveInt | Literal["auto"] = "auto"
    object_size: PositiveFloat | Literal["auto"] | None = None
    count: PositiveInt = 4000
    seed: NonNegativeInt = 0
    zoom: tuple[PositiveFloat, PositiveFloat] = (0.8, 1.25)
    flips: bool = True
    turns: bool = True
    contrast: ContrastSettings = field(default_factory=ContrastSettings)
    frames: Literal["first", "all"] = "first"
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if self.zoom[0] > self.zoom[1]:
            raise RecipeError(f"zoom must rise, but is {list(self.zoom)}.")

    def images(self) -> ImageFolder:
        """The images as they are found in the folder."""
        return ImageFolder(
            ImageFolderSettings(self.folder, skip_damaged=self.skip_damaged, frames=self.frames, contrast=self.contrast)
        )


class ImageCrops:
    """`count` crops. An image is chosen as often as its pixels are many.

    Images are kept in memory (up to 1 GiB a process), reduced by a whole factor where the crops are reduced anyway.

    Attributes:
        paths: as in `ImageFolder`, like `frames` and `skipped`.

    Raises:
        RecipeError: `crop` is `auto`.
        DataError: as `ImageFolder`; or an image is smaller than a crop.
    """

    Settings = ImageCropsSettings

    def __init__(self, settings: ImageCropsSettings) -> None:
        if settings.crop == "auto":
            raise RecipeError(
                "data.crop is auto, which `unscene train` replaces. Give the side in pixels: --data.crop N."
            )
        self.settings, self.crop = settings, settings.crop
        folder = settings.images()
        self.paths, self.frames, self.skipped = folder.paths, folder.frames, folder.skipped
        with skip_damaged_hint():
            self._sizes = [image_size(path, frame) for path, frame in zip(self.paths, self.frames, strict=True)]
        for path, (height, width) in zip(self.paths, self._sizes, strict=True):
            if min(height, width) < self.crop:
                raise DataError(
                    f"{path} has {width} x {height} pixels, but crops of {self.crop} x {self.crop} are taken. "
                    "Lower --data.crop, or take this image out of the folder."
                )
        pixels = np.prod(self._sizes, axis=1, dtype=np.float64)
        self._share_below = np.cumsum(pixels / pixels.sum())
        self._reduction = max(1, int(self.crop * settings.zoom[0] / settings.size))
        self._cache: dict[int, Image.Image] = {}
        self._cached = 0  # bytes
        if (needed := 3 * pixels.sum() / self._reduction**2) > _CACHE_BYTES:
            _log.warning(
                "the images of %s need %.1f GiB, of which 1 GiB is kept in memory; the others are read again for each "
                "crop, which is slow. Take fewer images.",
                settings.folder,
                needed / 2**30,
            )

    def __len__(self) -> int:
        return self.settings.count

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": {}, "_cached": 0}  # a spawned worker fills its own

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[np.uint8]]:
        """Return `image` [B, size, size, 3] uint8. DataError: an image cannot be read."""
        indices = checked_indices(indices, len(self))
        crops = np.empty((len(indices), self.settings.size, self.settings.size, 3), np.uint8)
        for row, index in zip(crops, indices.tolist(), strict=True):
            row[:] = self._crop(index)
        return {"image": crops}

    def _crop(self, index: int) -> NDArray[np.uint8]:
        settings, rng = self.settings, np.random.default_rng((self.settings.seed, index))
        image = min(int(np.searchsorted(self._share_below, rng.random(), side="right")), len(self.paths) - 1)
        height, width = self._sizes[image]
        side = min(self.crop * float(np.exp(rng.uniform(*np.log(settings.zoom)))), height, width)
        x, y = rng.random() * (width - side), rng.random() * (height - side)
        quarter_turns, mirrored = int(rng.integers(4)) * settings.turns, bool(rng.integers(2)) and settings.flips
        edges = np.array([x, y, x + side, y + side]) / self._reduction
        box = (float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3]))
        size = (settings.size, settings.size)
        square = np.asarray(self._image(image).resize(size, Image.Resampling.BICUBIC, box))
        square = np.rot90(square, quarter_turns)
        return square[:, ::-1] if mirrored else square

    def _image(self, index: int) -> Image.Image:
        """An image, reduced."""
        if index in self._cache:
            return self._cache[index]
        path = self.paths[index]
        with skip_damaged_hint():
            pixels = read_image(path, self.frames[index], self.settings.contrast)
        if pixels.min() == pixels.max():
            warn_once("plain", path.parent, f"{path} has one colour only, so there is nothing to learn from it.")
        image = Image.fromarray(pixels).reduce(self._reduction)
        if self._cached + 3 * image.width * image.height <= _CACHE_BYTES:
            self._cache[index] = image
            self._cached += 3 * image.width * image.height
        return image

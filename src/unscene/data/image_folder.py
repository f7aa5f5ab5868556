"""A folder of your own images, without labels, in any format and mode that Pillow reads."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from unscene.data.image_file import ContrastSettings, frame_numbers, read_image, readable, warn_once
from unscene.data.image_resize import FitKind, fit_image
from unscene.data.samples import checked_indices
from unscene.errors import DataError, refusal
from unscene.settings import NonEmptyText, settings_dataclass

_CACHE_BYTES = 2**29
_SHOWN = 5  # names in a message

_log = logging.getLogger(__name__)


@settings_dataclass
class ImageFolderSettings:
    """Which images, and how they become the model's square."""

    folder: NonEmptyText  # searched with all folders below it; names that begin with a dot are ignored
    size: PositiveInt = 64  # side of the square in pixels
    # Leave out the images that cannot be read. For that, every image is read once at the start.
    skip_damaged: bool = False
    fit: FitKind = "crop"  # as in `fit_image`
    # of a stack of pages or an animation, read the `first`, or `all` as images of their own
    frames: Literal["first", "all"] = "first"
    contrast: ContrastSettings = field(default_factory=ContrastSettings)  # see `ContrastSettings`


class ImageFolder:
    """The images of a folder, read when they are needed.

    Fitted images are kept in memory (up to 512 MiB a process), since decoding a photograph takes some 100 ms.

    Attributes:
        paths: paths of the images, sorted by their names below the folder; image `i` of a batch is `paths[i]`.
        frames: which frame of its file each image is, from 0; None for the first, if only that is read.
        skipped: the images that cannot be read, with `skip_damaged`; the log names them.

    Raises:
        DataError: the folder is missing, is a file, or has no image (that can be read).
    """

    Settings = ImageFolderSettings

    def __init__(self, settings: ImageFolderSettings) -> None:
        self.settings = settings
        images = _find_images(Path(settings.folder).expanduser())
        if settings.frames == "all":
            images = [(path, frame) for path, _ in images for frame in frame_numbers(path)]
        self.skipped: list[Path] = []
        self._cache: dict[tuple[Path, int | None], NDArray[np.uint8]] = {}
        if settings.skip_damaged:
            images = self._sound(images)
        self.paths, self.frames = [path for path, _ in images], [frame for _, frame in images]

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}  # a spawned worker fills its own

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[np.uint8]]:
        """Return `image` [B, size, size, 3] uint8. DataError: an image cannot be read."""
        indices = checked_indices(indices, len(self))
        images = np.empty((len(indices), self.settings.size, self.settings.size, 3), np.uint8)
        for row, index in enumerate(indices.tolist()):
            with skip_damaged_hint():
                images[row] = self._square(self.paths[index], self.frames[index])
        return {"image": images}

    def _square(self, path: Path, frame: int | None) -> NDArray[np.uint8]:
        square = self._cache.get((path, frame))
        if square is None:
            pixels = read_image(path, frame, self.settings.contrast)
            square, _ = fit_image(pixels, self.settings.size, self.settings.fit)
            if (len(self._cache) + 1) * square.nbytes <= _CACHE_BYTES:
                self._cache[path, frame] = square
        return square

    def _sound(self, images: list[tuple[Path, int | None]]) -> list[tuple[Path, int | None]]:
        """The images that can be read; the others are `skipped`."""
        sound, errors = [], []
        for path, frame in images:
            try:
                self._square(path, frame)
                sound.append((path, frame))
            except DataError as error:
                errors.append(error)
                self.skipped.append(path)
        if not sound:
            raise DataError(f"none of the {len(images)} images of {self.settings.folder} can be read: {errors[0]}")
        if errors:
            more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
            names = ", ".join(map(str, self.skipped[:_SHOWN]))
            _log.warning("%d of %d images left out, they cannot be read: %s%s", len(errors), len(images), names, more)
        return sound


@contextmanager
def skip_damaged_hint() -> Iterator[None]:
    """Add to a DataError of an image how to leave such images out."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error} Pass --data.skip-damaged to leave such images out.") from error


def _find_images(folder: Path) -> list[tuple[Path, int | None]]:
    if not folder.exists():
        raise DataError(f"There is no folder {folder}. Check its name.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file. Give the folder it is in: {folder.parent}.")
    files = sorted(_files_below(folder), key=lambda path: path.relative_to(folder).as_posix())
    images = [path for path in files if path.suffix.lower() in readable()[1]]
    kinds = Counter(path.suffix or "without suffix" for path in files if path.suffix.lower() not in readable()[1])
    others = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(_SHOWN))
    if not images:
        expected = "expected .png, .jpg, .tif or another suffix of Pillow's"
        raise DataError(f"{folder} has no image ({expected}), but {others or 'no file at all'}. Give another folder.")
    if others:
        message = f"Files in {folder} that are not read, since their suffixes are not those of images"
        warn_once("suffixes", folder, f"{message}: {others}.")
    return [(path, None) for path in images]


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file, also behind links to folders, each of which is entered once; without those of a run below it."""
    entered = set()
    for parent, folders, files in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        real = os.path.realpath(parent)
        is_run = "recipe.yaml" in files and "checkpoints" in folders  # its samples/ are no data
        if real in entered or (is_run and Path(parent) != folder):
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _raise_unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be searched: it {refusal(error) or error}") from error

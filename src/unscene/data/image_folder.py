"""A folder of your own images, without labels, in any format and mode that Pillow reads."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import PositiveInt

from unscene.data.image_resize import FitKind, fit_image
from unscene.data.samples import checked_indices
from unscene.errors import DataError
from unscene.settings import NonEmptyText, settings_dataclass

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_WHITE = (255, 255, 255, 255)
_CACHE_BYTES = 2**29
_SHOWN = 5  # names in a message

_log = logging.getLogger(__name__)


@settings_dataclass
class ImageFolderSettings:
    """Which images, and how they become the model's square.

    Attributes:
        folder: searched with all folders below it; names that begin with a dot are ignored.
        size: side of the square in pixels.
        skip_damaged: leave out the images that cannot be read. For that, every image is read once at the start.
        fit: as in `fit_image`.
    """

    folder: NonEmptyText
    size: PositiveInt = 64
    skip_damaged: bool = False
    fit: FitKind = "crop"


class ImageFolder:
    """The images of a folder, read when they are needed.

    Fitted images are kept in memory (up to 512 MiB a process), since decoding a photograph takes some 100 ms.

    Attributes:
        paths: paths of the images, sorted by their names below the folder; image `i` of a batch is `paths[i]`.
        skipped: the images that cannot be read, with `skip_damaged`; the log names them.

    Raises:
        DataError: the folder is missing, is a file, or has no image (that can be read).
    """

    Settings = ImageFolderSettings

    def __init__(self, settings: ImageFolderSettings) -> None:
        self.settings = settings
        self.paths = _find_images(Path(settings.folder).expanduser())
        self.skipped: list[Path] = []
        self._cache: dict[Path, NDArray[np.uint8]] = {}
        if settings.skip_damaged:
            self._leave_out_damaged()

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}  # a spawned worker fills its own

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[np.uint8]]:
        """Return `image` [B, size, size, 3] uint8.

        Raises:
            DataError: an image cannot be read.
        """
        indices = checked_indices(indices, len(self))
        images = np.empty((len(indices), self.settings.size, self.settings.size, 3), np.uint8)
        for row, index in enumerate(indices.tolist()):
            try:
                images[row] = self._square(self.paths[index])
            except DataError as error:
                raise DataError(f"{error} Pass --data.skip-damaged to leave such images out.") from error
        return {"image": images}

    def _square(self, path: Path) -> NDArray[np.uint8]:
        square = self._cache.get(path)
        if square is None:
            square, _ = fit_image(read_image(path), self.settings.size, self.settings.fit)
            if (len(self._cache) + 1) * square.nbytes <= _CACHE_BYTES:
                self._cache[path] = square
        return square

    def _leave_out_damaged(self) -> None:
        errors = {}
        for path in self.paths:
            try:
                self._square(path)
            except DataError as error:
                errors[path] = error
        found, self.skipped = len(self.paths), list(errors)
        if len(errors) == found:
            raise DataError(
                f"none of the {found} images of {self.settings.folder} can be read: {errors[self.paths[0]]}"
            )
        if errors:
            self.paths = [path for path in self.paths if path not in errors]
            more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
            names = ", ".join(map(str, self.skipped[:_SHOWN]))
            _log.warning("%d of %d images left out, they cannot be read: %s%s", len(errors), found, names, more)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image at its full resolution, upright as its EXIF orientation says, as [H, W, 3] uint8.

    The file's content decides the format. Grey, palette, CMYK and all other modes become RGB. Transparent pixels are
    blended with white. Of an animation the first frame is read. Greys of more than 8 bits are scaled, not cut: 16 bits
    by 1/257; floats in [0, 1] by 255; any other range from its least value to its greatest.

    Raises:
        DataError: the file is missing, damaged, cut short, no image, or has more than twice
            `PIL.Image.MAX_IMAGE_PIXELS` pixels, which Pillow takes for an attack (a "decompression bomb").
    """
    try:
        # Opened here: given the name, Pillow 13 maps some TIFFs into memory and then mixes up the rows of turned ones.
        with Path(path).open("rb") as file, Image.open(file) as image:
            return _as_rgb(ImageOps.exif_transpose(image))
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    except FileNotFoundError:
        raise DataError(f"There is no image {path}. Check its name.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder. Name an image in it.") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(f"{path} has more than {most:,} pixels. Reduce it with another program first.") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is damaged or no image that Pillow knows. Save it again as PNG or JPEG.") from None
    except Exception as error:  # the decoders raise SyntaxError, struct.error, IndexError ... for damaged files
        raise DataError(f"{path} is damaged ({error}). Copy or save it again.") from error


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_as_bytes(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        on_white = Image.new("RGBA", image.size, _WHITE)
        on_white.alpha_composite(image.convert("RGBA"))
        image = on_white
    return np.array(image.convert("RGB"))


def _as_bytes(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """[H, W] 16-bit, 32-bit or floating-point greys to 0..255, as `read_image` says."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("has pixels that are no numbers (NaN or infinite). Replace them first.")
    low, high = values.min(), values.max()
    if grey.dtype.kind in "iu" and low >= 0 and high <= 65535:
        low, high = 0, 65535
    elif grey.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0, 1
    scaled: NDArray[np.float64] = (values - low) * (255 / ((high - low) or 1))  # one single value becomes 0
    return scaled.round().astype(np.uint8)


def _find_images(folder: Path) -> list[Path]:
    if not folder.exists():
        raise DataError(f"There is no folder {folder}. Check its name.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file. Give the folder it is in: {folder.parent}.")
    files = sorted(_files_below(folder), key=lambda path: path.relative_to(folder).as_posix())
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        kinds = Counter(path.suffix or "without suffix" for path in files).most_common(_SHOWN)
        found = ", ".join(f"{number} {kind}" for kind, number in kinds) or "no file at all"
        raise DataError(f"{folder} has no image (expected {', '.join(SUFFIXES)}), but {found}. Give another folder.")
    return images


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file, also behind links to folders; a folder that several links lead to is entered once."""
    entered = set()
    for parent, folders, files in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _raise_unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be searched ({error.strerror}). Check its permissions.")

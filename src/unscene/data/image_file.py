"""One image file as RGB, in any format and mode that Pillow reads. What its pixels do not need cannot stop the reading.

Pillow refuses a file for a wrong checksum of a comment or a short colour profile. Such a PNG or JPEG is read again from
the parts that hold its pixels. Its orientation counts if it can be read.
"""

from __future__ import annotations

import io
import logging
import random
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from pydantic import Field, PositiveFloat, PositiveInt

from unscene.errors import DataError, RecipeError, refusal
from unscene.settings import settings_dataclass

Percent = Annotated[float, Field(ge=0, le=100)]
Result = TypeVar("Result")

# EPS starts another program (Ghostscript); Pillow has no decoder of its own for the others
_NOT_READ = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
_ORIENTATION = 0x0112
_OME = (".ome.tif", ".ome.tiff")
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
_TURNED = (5, 6, 7, 8)  # orientations that exchange height and width
_STRIPE = 2**24  # pixels that are converted at once, so that memory holds a large image only twice
_PNG_PIXELS, _PNG_FRAMES = (b"IHDR", b"PLTE", b"tRNS", b"IDAT"), (b"acTL", b"fcTL", b"fdAT")
_PNG_END, _JPEG_END = b"\0\0\0\0IEND\xaeB`\x82", b"\xff\xd9"

_ONCE = "Further files of its folder are not named."

_log = logging.getLogger(__name__)
_warned: set[tuple[str, Path]] = set()


@settings_dataclass
class ContrastSettings:
    """How the values of an image become 0..255: alike in all colours, but each channel of a microscope by itself."""

    # The channels, from 1, that become grey (one) or red, green and blue (two or three). By default the first three, or
    # all that there are.
    channels: tuple[PositiveInt, ...] = ()
    # The values at these two percentiles become 0 and 255, those beyond are clipped. Without them 8 bits stay as they
    # are, and deeper greys are scaled as in `read_image`.
    percentiles: tuple[Percent, Percent] | None = None
    # Exponent of the values in 0..1. Below 1, faint objects become brighter; 0.5 is the square root. `auto` takes an
    # exponent from 0.4 to 1 for each image, which brings its 90th percentile as near to 0.5 as it can.
    gamma: PositiveFloat | Literal["auto"] = 1.0

    def __post_init__(self) -> None:
        if self.percentiles and self.percentiles[0] >= self.percentiles[1]:
            raise RecipeError(f"percentiles must rise, but are {list(self.percentiles)}.")
        if len(self.channels) > 3:
            raise RecipeError(f"channels are one, two or three, but here {len(self.channels)}.")


AS_STORED = ContrastSettings()


@cache
def readable() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The formats that are read, by Pillow's names, and the suffixes of their files."""
    suffixes = Image.registered_extensions()  # loads all formats
    formats = tuple(kind for kind in Image.ID if kind in Image.OPEN and kind not in _NOT_READ)
    kinds = (*formats, "MPO")  # a JPEG of several pictures, which the JPEG format reads
    videos = _VIDEOS if find_spec("av") else ()
    return formats, tuple(sorted([*(suffix for suffix, kind in suffixes.items() if kind in kinds), *videos]))


def read_image(path: str | Path, frame: int | None = None, contrast: ContrastSettings = AS_STORED) -> NDArray[np.uint8]:
    """Read an image at its full resolution, upright as its EXIF orientation says, as [H, W, 3] uint8.

    The file's content decides the format. Microscopes' TIFFs (OME, ImageJ) and videos need an extra. Grey, palette,
    CMYK and all other modes become RGB. Transparent pixels are blended with white. `frame` is a page of a stack or a
    frame of an animation or video, from 0; by default it is the first, and the log warns if there are more. Greys of
    more than 8 bits are scaled, not cut: floats in [0, 1] by 255; whole numbers by the least of 8, 10, 12, 14 and 16
    bits that holds them, with a warning for less than 16; any other range from its least value to its greatest.
    `contrast` changes this; it reads all bits of a grey. DataError: the file is missing, may not be read, damaged, cut
    short, no image, or has more than twice `PIL.Image.MAX_IMAGE_PIXELS` pixels, which Pillow takes for an attack (a
    "decompression bomb").
    """
    if stacks := _stacks(Path(path)):
        return _from_planes(stacks, Path(path), frame, contrast)
    pixels = _use(Path(path), lambda image: _upright(image, frame, Path(path), contrast))
    if contrast.channels:
        planes = _chosen(pixels.transpose(2, 0, 1), contrast, Path(path))
        pixels = _colours(planes)
    return pixels


def read_label_image(path: str | Path) -> NDArray[np.int32]:
    """Read a label image: [H, W], a whole number of 0 or more for each pixel, as they are stored.

    DataError: as `read_image`; or the image has colours, fractions, negative values or several pages.
    """
    return _use(Path(path), _label_values)


def image_size(path: Path, frame: int | None = None) -> tuple[int, int]:
    """The height and width that `read_image` returns, from the file's header. DataError as there."""

    if stacks := _stacks(path):
        height, width = stacks.read_planes(path, frame or 0).shape[1:]
        return height, width

    def size(image: ImageFile.ImageFile) -> tuple[int, int]:
        image.seek(frame or 0)
        return image.size if _orientation(image) in _TURNED else (image.height, image.width)

    return _use(path, size)


def frame_numbers(path: Path) -> Sequence[int | None]:
    """The frames of an image file, from 0; None alone if it has one, or cannot be read (`read_image` says why).

    Of a TIFF that is cut short, frames are counted to the first whose header is missing, which cannot be read.
    """
    count = 1
    with suppress(DataError):
        stacks = _stacks(path)
        count = stacks.count_frames(path) if stacks else _use(path, _count_pages)
    return range(count) if count > 1 else [None]


def _count_pages(image: ImageFile.ImageFile) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # Pillow is at the page whose header it cannot read
        return image.tell() + 1


def is_turned(path: str | Path) -> bool:
    """Whether an image's EXIF orientation exchanges its height and width."""
    return not _stacks(Path(path)) and _use(Path(path), lambda image: _orientation(image) in _TURNED)


def _stacks(path: Path) -> Any:
    """The module that reads a file which Pillow does not, or of which it does not know the axes; else None."""
    if path.name.lower().endswith((*_VIDEOS, *_OME)) or _is_of_a_microscope(path):
        return import_module("unscene.data.stacks")
    return None


def _is_of_a_microscope(path: Path) -> bool:
    with suppress(Exception), warnings.catch_warnings(action="ignore"):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                    file.seek(0)
                    with Image.open(file, formats=["TIFF"]) as image:
                        text = str(getattr(image, "tag_v2", {}).get(270, ""))
                    return "<OME" in text or text.startswith("ImageJ=")
    return False


def _from_planes(stacks: Any, path: Path, frame: int | None, contrast: ContrastSettings) -> NDArray[np.uint8]:
    planes: NDArray[Any] = stacks.read_planes(path, frame or 0)
    if frame is None and stacks.count_frames(path) > 1:
        message = f"{path} has several frames or planes, of which only the first is read"
        warn_once("frames", path.parent, f"{message}. To read all, set frames to all. {_ONCE}")
    if not contrast.channels and len(planes) > 3:
        message = f"{path} has {len(planes)} channels, of which the first three are read as red, green and blue"
        warn_once("channels", path.parent, f"{message}. Choose them with contrast.channels. {_ONCE}")
    if stacks.is_video(path):
        pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
        change_contrast(pixels, contrast)
        return _colours(_chosen(pixels.transpose(2, 0, 1), contrast, path))
    scaled = []
    for plane in _chosen(planes, contrast, path):
        try:
            is_byte = plane.dtype == np.uint8 and not contrast.percentiles
            low, high = (0.0, 255.0) if is_byte else _grey_range(plane, path, contrast)
        except DataError as error:
            raise DataError(f"{path} {error}") from error
        gamma = _gamma(plane, low, high, contrast)
        scaled.append(_scaled(plane.astype(np.float64), low, high, gamma).round().astype(np.uint8))
    return _colours(scaled)


def _chosen(planes: NDArray[Any], contrast: ContrastSettings, path: Path) -> Sequence[NDArray[Any]]:
    """The planes [H, W] of the channels that are read."""
    if contrast.channels and max(contrast.channels) > len(planes):
        raise DataError(f"{path} has {len(planes)} channels, but channel {max(contrast.channels)} is asked for.")
    return [planes[channel - 1] for channel in contrast.channels] if contrast.channels else list(planes[:3])


def _colours(planes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """One plane as grey, two as red and green, three as red, green and blue; [H, W, 3]."""
    filled = [*planes, np.zeros_like(planes[0])] if len(planes) == 2 else planes
    return np.stack([filled[0]] * 3 if len(planes) == 1 else filled, axis=-1)


def warn_once(kind: str, folder: Path, message: str) -> None:
    """Warn in the log of one kind of image, once for a folder."""
    key = (kind, folder.absolute())
    if key not in _warned:
        _warned.add(key)
        _log.warning("%s", message)


def _use(path: Path, use: Callable[[ImageFile.ImageFile], Result]) -> Result:
    """The result of a function of an opened image."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise DataError("is not a regular file but a pipe, a socket or a device. Name an image file.")
        # Opened here: given the name, Pillow 13 maps some TIFFs into memory and then mixes up the rows of turned ones.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            try:
                return _attempt(file, use)
            except (DataError, MemoryError, Image.DecompressionBombError):
                raise
            except Exception as error:  # decoders raise SyntaxError, struct.error ...; for damaged metadata too
                return _use_pixels_alone(file, use, error)
    except DataError as error:
        reason = str(error)
    except (MemoryError, Image.DecompressionBombError) as error:
        most = f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        reason = "does not fit into the memory" if isinstance(error, MemoryError) else most
        reason += ". Reduce it with another program first."
    except UnidentifiedImageError:
        reason = "is damaged or no image that Pillow knows. Save it again as PNG or JPEG."
    except Exception as error:
        refused = refusal(error) if isinstance(error, OSError) else None
        reason = refused or f"is damaged ({error}). Copy or save it again."
    raise DataError(f"{path} {reason}")


def _attempt(file: IO[bytes], use: Callable[[ImageFile.ImageFile], Result]) -> Result:
    with Image.open(file, formats=readable()[0]) as image:
        return use(image)


def _use_pixels_alone(file: IO[bytes], use: Callable[[ImageFile.ImageFile], Result], error: Exception) -> Result:
    """The same of the parts of a PNG or JPEG that hold its pixels; the first error if these are damaged too."""
    file.seek(0)
    content = file.read()
    for with_more in (True, False):
        parts = _png_pixels(content, with_more) or _jpeg_pixels(content, with_more)
        with suppress(Exception):
            results = [_attempt(io.BytesIO(part), use) for part in parts]
            if results and np.all(np.asarray(results[0]) == np.asarray(results[-1])):
                return results[0]
    raise error


def _png_pixels(content: bytes, with_more: bool) -> list[bytes]:
    """The chunks of a PNG that its pixels need, and an end; `with_more` EXIF and frames; empty if it is no PNG."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return []
    kept, start = [content[:8]], 8
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        kind = content[start + 4 : start + 8]
        if kind in _PNG_PIXELS or (kind in _PNG_FRAMES and with_more):
            kept.append(content[start:end])
        elif kind == b"eXIf" and with_more:
            checksum = zlib.crc32(content[start + 4 : end - 4])
            kept.append(content[start : end - 4] + checksum.to_bytes(4))
        start = end
    return [b"".join([*kept, _PNG_END])]


def _jpeg_pixels(content: bytes, with_more: bool) -> list[bytes]:
    """A JPEG without its APP and COM segments (`with_more`: but with EXIF), with two endings; empty if it is none.

    The end marker may be missing. If data are missing too, the decoder takes the bytes of the second ending for them,
    and the pixels of the two differ.
    """
    if not content.startswith(b"\xff\xd8"):
        return []
    kept, start = [content[:2]], 2
    while content[start : start + 1] == b"\xff" and content[start + 1 : start + 2] != b"\xda":  # the first scan
        marker, end = content[start + 1], start + 2 + int.from_bytes(content[start + 2 : start + 4])
        segment = content[start:end]
        is_colour = marker == 0xEE and len(segment) >= 16  # Adobe's: YCCK or CMYK
        is_exif = marker == 0xE1 and segment[4:10] == b"Exif\0\0" and with_more
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or is_colour or is_exif:
            kept.append(segment)
        start = max(end, start + 2)
    pixels = (b"".join(kept) + content[start:]).rstrip(b"\xff")
    return [pixels + _JPEG_END, pixels + random.Random(0).randbytes(4096).replace(b"\xff", b"\xfe") + _JPEG_END]


def _upright(
    image: ImageFile.ImageFile, frame: int | None, path: Path, contrast: ContrastSettings
) -> NDArray[np.uint8]:
    if frame:
        image.seek(frame)
    keeps_half = re.search(";16[BLN]", str(image.tile)) and ";16" not in image.mode  # 8 of the 16 bits of a colour
    image.load()
    orientation, pixels = _orientation(image), _as_rgb(image, path, contrast)
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    brightest = int(pixels.max(initial=0))
    if brightest < 64 if keeps_half else 0 < brightest < 16:
        message = f"{path} has no value above {brightest} of 255, it is nearly black."
        warn_once("dark", path.parent, f"{message} If its values fill fewer bits, scale them. {_ONCE}")
    with suppress(Exception):  # what follows the first frame is not needed
        if frame is None and getattr(image, "is_animated", False):
            message = f"{path} has {getattr(image, 'n_frames', 2)} pages or frames, of which only the first is read"
            warn_once("frames", path.parent, f"{message}. To read all, set frames to all. {_ONCE}")
    return np.ascontiguousarray(pixels)


def _label_values(image: ImageFile.ImageFile) -> NDArray[np.int32]:
    expected = "Expected a label image: one channel, 0 for the background, a whole number for each object."
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise DataError(f"has {pages} pages. {expected}")
    if image.mode not in ("1", "L", "P", "I", "F") and not image.mode.startswith("I;16"):
        raise DataError(f"has several channels ({image.mode}). {expected}")
    if image.format in ("JPEG", "MPO"):
        raise DataError(f"is a JPEG, which changes labels. {expected} Save it as PNG or TIFF.")
    values = np.asarray(image)  # of a palette image the numbers of the colours
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        raise DataError(f"holds fractions. {expected}")
    if values.min(initial=0) < 0:
        raise DataError(f"holds negative labels, or some of 2^31 and above. {expected}")
    return values.astype(np.int32)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 without one; Pillow loses it behind an entry that points beyond the metadata."""
    with suppress(Exception):
        if found := int(image.getexif().get(_ORIENTATION, 0)):
            return found
    with suppress(Exception):
        exif = bytes(image.info["exif"]).removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(count):
            name, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * entry)
            if (name, kind) == (_ORIENTATION, 3):
                return int(value)
    return 1  # metadata that cannot be read has none


def _as_rgb(image: Image.Image, path: Path, contrast: ContrastSettings) -> NDArray[np.uint8]:
    """[H, W, 3], converted in stripes, so that memory holds a large image only twice."""
    is_grey = image.mode in ("I", "F") or image.mode.startswith("I;16")
    greys = np.asarray(image) if is_grey else None
    low, high = (0.0, 0.0) if greys is None else _grey_range(greys, path, contrast)
    gamma = 1.0 if greys is None else _gamma(greys, low, high, contrast)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIPE // image.width)
    for top in range(0, image.height, rows):
        if greys is not None:
            values = greys[top : top + rows].astype(np.float64)
            pixels[top : top + rows] = _scaled(values, low, high, gamma).round()[..., None]
            continue
        stripe = image.crop((0, top, image.width, min(top + rows, image.height)))
        if stripe.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in stripe.info:
            on_white = Image.new("RGBA", stripe.size, (255, 255, 255, 255))
            on_white.alpha_composite(stripe.convert("RGBA"))
            stripe = on_white
        pixels[top : top + rows] = np.asarray(stripe if stripe.mode == "RGB" else stripe.convert("RGB"))
    if greys is None:
        change_contrast(pixels, contrast)
    return pixels


def change_contrast(pixels: NDArray[np.uint8], contrast: ContrastSettings) -> None:
    """Scale the values of a picture [H, W, 3] in place, alike in all colours."""
    if contrast == AS_STORED:
        return
    low, high = _percentile_range(pixels, contrast) if contrast.percentiles else (0.0, 255.0)
    gamma = _gamma(pixels, low, high, contrast)
    table = _scaled(np.arange(256.0), low, high, gamma).round().astype(int).tolist()
    rows = max(1, _STRIPE // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        stripe = Image.fromarray(pixels[top : top + rows])
        pixels[top : top + rows] = np.asarray(stripe.point(3 * table))


def _scaled(values: NDArray[np.float64], low: float, high: float, gamma: float) -> NDArray[np.float64]:
    """Values as 0..255 of the range, those beyond clipped; one single value becomes 0."""
    scaled = ((values - low) * (255 / ((high - low) or 1))).clip(0, 255)
    return scaled if gamma == 1 else 255 * (scaled / 255) ** gamma


def _gamma(values: NDArray[Any], low: float, high: float, contrast: ContrastSettings) -> float:
    """The exponent of an image whose values from `low` to `high` become 0..1."""
    if contrast.gamma != "auto":
        return contrast.gamma
    bright = (float(np.percentile(values, 90)) - low) / ((high - low) or 1)
    return float(np.clip(np.log(0.5) / np.log(bright), 0.4, 1)) if 0 < bright < 1 else (1.0 if bright >= 1 else 0.4)


def _percentile_range(values: NDArray[Any], contrast: ContrastSettings) -> tuple[float, float]:
    """The values at the percentiles, or where these are equal (few bright pixels) the least and the greatest value."""
    low, high = (float(value) for value in np.percentile(values, contrast.percentiles or (0, 100), method="lower"))
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def _grey_range(greys: NDArray[np.generic], path: Path, contrast: ContrastSettings) -> tuple[float, float]:
    """The values that become 0 and 255, as `read_image` says."""
    if not np.isfinite(greys).all():
        raise DataError("has pixels that are no numbers (NaN or infinite). Replace them first.")
    if contrast.percentiles:
        return _percentile_range(greys, contrast)
    low, high = float(greys.min()), float(greys.max())
    if greys.dtype.kind == "f":
        return (0, 1) if low >= 0 and high <= 1 else (low, high)
    if low < 0 or high >= 2**16:
        return low, high
    bits = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    if 0 < high < 2**14:
        message = f"{path} has no grey above {high:,.0f} of 65,535: it is read as {bits} bits"
        warn_once("bits", path.parent, f"{message}. If it is a dark picture of 16 bits, scale it first. {_ONCE}")
    return 0, 2**bits - 1

"""The files of one decomposed image: overlay, label map, arrays; and its thumbnail."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unscene.data.image_resize import ResizeGeometry
from unscene.files import writing
from unscene.inference.found_objects import FoundObjects
from unscene.inference.output_names import NamedImage
from unscene.report.overlay import overlay
from unscene.report.results import Picture, SlotLocation
from unscene.report.slots import label_map_palette

SUFFIXES = (".overlay.png", ".masks.png", ".npz")
_THUMBNAIL = 320  # pixels of the longer side


@dataclass(frozen=True)
class ReadImage:
    """An image with its name, its pixels [H, W, 3], and the square [S, S, 3] that the model sees of it."""

    name: NamedImage
    pixels: NDArray[np.uint8]
    square: NDArray[np.uint8]
    geometry: ResizeGeometry


def write_image_results(read: ReadImage, found: FoundObjects, folder: Path) -> NDArray[np.uint8]:
    """Write `NAME.overlay.png`, `NAME.masks.png` and `NAME.npz`, as `unscene.inference.decompose` describes them.

    Args:
        read: the image.
        found: its objects.
        folder: of the results; folders of the name are created in it.

    Returns:
        The overlay [H, W, 3].

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    target = folder / read.name.stem
    rows = np.zeros((int(found.slots.max(initial=0)), 4), np.float32)  # by slot, so that a slot keeps its colour
    rows[found.slots - 1] = found.boxes
    picture = overlay(read.pixels, found.labels, rows)
    label_map = Image.fromarray(found.labels)
    label_map.putpalette(label_map_palette())
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(f"{target}.overlay.png")
        label_map.save(f"{target}.masks.png")
        np.savez_compressed(f"{target}.npz", **_arrays(read, found))
    return picture


def thumbnail(picture: NDArray[np.uint8], name: NamedImage, found: FoundObjects) -> Picture:
    """The overlay, small, with the number of objects below and a link to the full one; a JPEG, or a PNG if small."""
    objects = len(found.slots)
    image = Image.fromarray(picture)
    small = max(image.size) <= _THUMBNAIL
    if small:  # enlarged without smoothing, so that its pixels are seen
        zoom = _THUMBNAIL // max(image.size)
        image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    if small:
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=85)
    locations: tuple[SlotLocation, ...] = ()
    if found.locations is not None:
        rows = zip(found.slots.tolist(), found.locations.tolist(), strict=True)
        locations = tuple(SlotLocation(slot, y, x) for slot, (y, x) in rows)
    count = f"{objects} object{'' if objects == 1 else 's'}"
    return Picture(
        file.getvalue(),
        alt=f"{name.file_name} with the masks and boxes of {count}.",
        caption=f"{name.file_name}: {count}",
        link=quote(f"{name.stem}.overlay.png"),
        locations=locations,
    )


def _arrays(read: ReadImage, found: FoundObjects) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "slots": found.slots,
        "areas": found.areas,
        "boxes": found.boxes,
        "scores": found.scores,
        "image_size": np.array([read.geometry.height, read.geometry.width]),
    }
    if found.latents is not None:
        arrays["latents"] = found.latents
    if found.locations is not None:
        arrays["locations"] = found.locations
    return arrays

"""Which images a command line names, and the result files of one image: overlay, label map, arrays, thumbnail."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unscene.data.image_file import frame_numbers
from unscene.data.image_folder import ImageFolder, ImageFolderSettings
from unscene.errors import DataError
from unscene.files import writing
from unscene.inference.found_objects import FoundObjects
from unscene.report.page import Outline, Picture, SlotLocation
from unscene.report.slots import label_map_palette, overlay, slot_colour

SUFFIXES = (".overlay.png", ".masks.png", ".labels.tif", ".npz")
COLUMNS = (
    *("image", "frame", "label", "area", "centroid_x", "centroid_y", "x1", "y1", "x2", "y2"),
    *("score", "contrast", "mean_red", "mean_green", "mean_blue"),
)
TRACK_COLUMNS = ("frame", "id", "x1", "y1", "x2", "y2", "x", "y", "score", "area")
_PARTS = re.compile(r"(\d*)(\D*)")  # of a file's name
_IN_A_PNG = 2**16 - 1  # labels
_ANIMATION_BYTES = 2**20
_THUMBNAIL = 320  # pixels of the longer side
_SHOWN = 1600  # the same, of an image that the page shows alone


class NamedImage(NamedTuple):
    """An image, the name of its file below the inputs' common folder, and the beginning of its results' names."""

    path: Path
    file_name: str
    stem: str
    frame: int | None = None  # of the file, from 0; None for the first, if only that is read

    @property
    def title(self) -> str:
        return self.file_name if self.frame is None else f"{self.file_name}, frame {self.frame + 1}"

    def order(self) -> tuple[list[tuple[int, str]], int]:
        """A key to sort the frames of a sequence by their names, 2 before 10."""
        return [(int(n or 0), text) for n, text in _PARTS.findall(self.file_name)], self.frame or 0


def named_images(paths: Sequence[Path], frames: Literal["first", "all"] = "first") -> tuple[Path, list[NamedImage]]:
    """Find the images of files and folders, folders with everything below them, every image once.

    In folders, names that begin with a dot and results of an earlier run (`*.overlay.png`, `*.masks.png`,
    `*.labels.tif`) are ignored. DataError: a path does not exist, a folder holds no image, a name is not UTF-8, or
    `paths` is empty.

    Returns the folder that all have in common, and the images in their order. Results are named like the image, without
    its suffix, in the same folders below the common one: `a/1.jpg` and `b/1.jpg` give `a/1` and `b/1`. Where this would
    give two images one name (`1.jpg` and `1.png`), the suffix stays. Frame 2 of a file gives `1.frame2`.
    """
    if not paths:
        raise DataError("no image was named. Give image files or folders.")
    images: dict[tuple[Path, int | None], None] = {}
    roots = []
    for path in map(_absolute, paths):
        roots.append(path if path.is_dir() else path.parent)
        images.update(dict.fromkeys(_images_of(path, frames)))
    try:
        common = Path(os.path.commonpath(roots))
    except ValueError as error:  # Windows
        raise DataError("the images are on different drives. Decompose those of each drive by themselves.") from error
    names = [PurePosixPath(path.relative_to(common).as_posix()) for path, _ in images]
    for name in names:
        try:
            str(name).encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(f"the name {str(name)!r} is not UTF-8, which a result file needs. Rename it.") from None
    ends = ["" if frame is None else f".frame{frame + 1}" for _, frame in images]
    stems = result_stems([name.with_stem(name.stem + end) for name, end in zip(names, ends, strict=True)])
    return common, [
        NamedImage(path, str(name), stem, frame) for (path, frame), name, stem in zip(images, names, stems, strict=True)
    ]


def result_stems(names: Sequence[PurePosixPath]) -> list[str]:
    """For each image the beginning of its results' names: its name without suffix, or with it where that is not unique.

    Names that differ in case alone count as equal, since some file systems treat `A.png` and `a.png` as one file. A
    number is appended where even the names with their suffixes are equal, as of `a.frame2.png` and frame 2 of `a.png`.
    """
    stems = [str(name.with_suffix("")) for name in names]
    longer: list[str] = []
    while longer != stems:  # cat.jpg, cat.png, cat.jpg.png: a name with suffix may be the short name of another image
        longer, taken = stems, Counter(stem.casefold() for stem in stems)
        stems = [str(n) if taken[s.casefold()] > 1 else s for s, n in zip(stems, names, strict=True)]
    unique: dict[str, str] = {}  # by the name without its case
    for stem in stems:
        numbered = chain([stem], (f"{stem}-{number}" for number in count(2)))
        name = next(name for name in numbered if name.casefold() not in unique)
        unique[name.casefold()] = name
    return list(unique.values())


def _images_of(path: Path, frames: Literal["first", "all"]) -> list[tuple[Path, int | None]]:
    if not path.exists():
        raise DataError(f"There is no image or folder {path}. Check its name.")
    if not path.is_dir():
        return [(path, frame) for frame in (frame_numbers(path) if frames == "all" else (None,))]
    results = SUFFIXES[:3]
    folder = ImageFolder(ImageFolderSettings(str(path), frames=frames))
    found = zip(map(_absolute, folder.paths), folder.frames, strict=True)
    images = [(file, frame) for file, frame in found if not file.name.endswith(results)]
    if not images:
        raise DataError(f"{path} holds only results of unscene ({', '.join(results)}). Name the folder of the images.")
    return images


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (links stay: a link's own name is the image's)


def write_image_results(
    pixels: NDArray[np.uint8], found: FoundObjects, name: NamedImage, folder: Path
) -> NDArray[np.uint8]:
    """Write the `SUFFIXES` files of an image [H, W, 3] into a folder; return the overlay [H, W, 3]."""
    target = folder / name.stem
    last = int(found.slots.max(initial=0))
    few = last <= 255
    # hundreds of numbers and thick lines would hide small objects
    stroke = None if few else 1
    picture = overlay(pixels, found.labels, found.boxes, slots=found.slots, numbers=few, stroke=stroke)
    arrays = {key: getattr(found, key) for key in ("slots", "areas", "boxes", "scores")}
    arrays["image_size"] = np.array(pixels.shape[:2])
    optional = {key: getattr(found, key) for key in ("model_boxes", "latents", "locations", "contrasts", "colours")}
    arrays |= {key: values for key, values in optional.items() if values is not None}
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(f"{target}.overlay.png")
        if few:
            label_map = Image.fromarray(found.labels.astype(np.uint8, copy=False))
            label_map.putpalette(label_map_palette())
            label_map.save(f"{target}.masks.png")
        deep = Image.fromarray(found.labels.astype(np.uint16 if last <= _IN_A_PNG else np.int32, copy=False))
        if not few and last <= _IN_A_PNG:
            deep.save(f"{target}.masks.png")
        deep.save(f"{target}.labels.tif", compression="tiff_deflate")
        np.savez_compressed(f"{target}.npz", **arrays)
    return picture


def table_rows(found: FoundObjects, name: NamedImage) -> list[list[Any]]:
    """A row of `COLUMNS` for each object; measures and pixels from the image's top left."""
    columns: list[list[Any]] = [found.slots.tolist(), found.areas.tolist()]
    columns += found.centroids()[:, ::-1].round(2).T.tolist()
    columns += found.boxes.astype(int).T.tolist()
    columns.append(found.scores.astype(float).round(5).tolist())
    if found.contrasts is not None and found.colours is not None:
        columns += [found.contrasts.astype(float).round(5).tolist(), *found.colours.astype(float).round(1).T.tolist()]
    frame = None if name.frame is None else name.frame + 1
    return [[name.file_name, frame, *row] for row in zip(*columns, strict=True)]


def outlined(pixels: NDArray[np.uint8], name: NamedImage, found: FoundObjects) -> Picture:
    """The image with the outline and number of each object as a vector drawing, for a page."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    image.thumbnail((_SHOWN, _SHOWN))
    columns = found.slots, found.boxes.astype(int), found.areas, found.scores, found.centroids()
    smallest = max(width, height) / 130  # of a number
    outlines = tuple(
        Outline(
            label=label,
            colour="#{:02x}{:02x}{:02x}".format(*slot_colour(label)),
            path=svg_path(found.labels[y1:y2, x1:x2] == label, x1, y1),
            x=x + 0.5,
            y=y + 0.5,
            height=max(smallest, min(0.4 * area**0.5, 4 * smallest)),
            title=f"{label}: area {area:,}, score {score:.2f}",
        )
        for label, (x1, y1, x2, y2), area, score, (y, x) in zip(*(column.tolist() for column in columns), strict=True)
    )
    plain = thumbnail(pixels, name, found)
    return replace(plain, data=_encoded(image, pixels), size=(width, height), outlines=outlines)


def svg_path(mask: NDArray[np.bool_], x: int, y: int) -> str:
    """The border of a mask whose top left pixel is at x, y in the image, in half pixels; coarser for a large mask."""
    from contourpy import contour_generator

    step = max(1, max(mask.shape) // 100)
    levels = np.pad(mask[::step, ::step].astype(np.float32), 1)
    commands = []
    lines: Any = contour_generator(z=levels).lines(0.5)  # a list of [points, 2] with the default kind of lines
    for line in lines:
        points = ((2 * line - 1) * step).round().astype(int) + np.array([2 * x, 2 * y])
        moves = np.diff(points, axis=0)
        turns = np.any(moves != np.roll(moves, 1, axis=0), axis=1)
        corners = points[:-1][turns]
        steps = np.diff(corners, axis=0).ravel().tolist()
        commands.append(f"M{corners[0, 0]} {corners[0, 1]}l{' '.join(map(str, steps))}z")
    return "".join(commands)


def thumbnail(picture: NDArray[np.uint8], name: NamedImage, found: FoundObjects) -> Picture:
    """The overlay, small, with the number of objects below and a link to the full one; a JPEG, or a PNG if small."""
    rows = () if found.locations is None else zip(found.slots.tolist(), found.locations.tolist(), strict=True)
    objects = f"{len(found.slots)} object{'' if len(found.slots) == 1 else 's'}"
    return Picture(
        _encoded(reduced(picture), picture),
        alt=f"{name.title} with the masks and boxes of {objects}.",
        caption=f"{name.title}: {objects}",
        link=quote(f"{name.stem}.overlay.png"),
        locations=tuple(SlotLocation(slot, y, x) for slot, (y, x) in rows),
    )


def _encoded(image: Image.Image, full: NDArray[np.uint8]) -> bytes:
    """A picture that a page shows, as a JPEG, or as a PNG where the full one is small."""
    file = io.BytesIO()
    image.save(file, "PNG" if max(full.shape) <= _THUMBNAIL else "JPEG", quality=85)
    return file.getvalue()


def reduced(picture: NDArray[np.uint8]) -> Image.Image:
    """The picture with a longer side of 320 pixels; a small one is enlarged without smoothing, to show its pixels."""
    image = Image.fromarray(picture)
    zoom = _THUMBNAIL // max(image.size)
    if zoom:
        return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return image


def track_rows(annotations: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A row of `TRACK_COLUMNS` for each COCO annotation with a `track_id`: x and y are the box's middle."""
    rows = []
    for annotation in annotations:
        x, y, width, height = annotation["bbox"]
        box = [x, y, x + width, y + height, x + width / 2, y + height / 2]
        rows.append([annotation["image_id"], annotation["track_id"], *box, annotation["score"], annotation["area"]])
    return rows


def animation(frames: Sequence[Image.Image], count: int) -> Picture:
    """An animation of as many of the first frames as fit in 1 MB, ten a second."""
    shown = len(frames)
    while True:
        file = io.BytesIO()
        frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:shown], duration=100, loop=0, quality=70)
        if file.tell() <= _ANIMATION_BYTES or shown == 1:
            break
        shown //= 2
    caption = f"{shown} of {count} frames" if shown < count else f"{count} frame{'' if count == 1 else 's'}"
    return Picture(file.getvalue(), f"An animation of {caption}, each object in the colour of its track.", caption)

"""Decompose your own images, of any size, each at its own resolution.

For every image `NAME`, in the folders of the images:

    NAME.overlay.png   the image with masks, boxes and numbers
    NAME.masks.png     label map: a palette image, 0 is the background, 1.. the slots; 16 bits above 255 labels
    NAME.labels.tif    the same label map in 16 bits, or in 32 bits above 65,535 labels, which have no NAME.masks.png
    NAME.npz           `slots` [N], `areas` [N], `boxes` [N, 4] of the masks, `scores` [N], `contrasts` [N], `colours`
                       [N, 3], `image_size` (H, W); if the model has them `model_boxes` [N, 4], `latents` [N, D],
                       `locations` [N, 2], y and x in 0..1

and for all together `objects.json` (COCO), `objects.csv` (a row for each object) and `index.html`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from unscene.data.image_file import ContrastSettings, read_image
from unscene.data.image_resize import FitKind, fit_image
from unscene.errors import DataError, RecipeError, ShapeError, check_options
from unscene.files import csv_text, output_folder, write_text
from unscene.inference.found_objects import (
    LIMITS,
    MIN_CONTRAST,
    FoundObjects,
    SplitParts,
    check_limits,
    coco_annotations,
    coco_json,
    found_objects,
    refine,
)
from unscene.inference.image_files import (
    COLUMNS,
    SUFFIXES,
    TRACK_COLUMNS,
    NamedImage,
    animation,
    named_images,
    outlined,
    reduced,
    table_rows,
    thumbnail,
    track_rows,
    write_image_results,
)
from unscene.inference.tiles import decompose_large
from unscene.report.page import Histogram, Picture, Section, write_page
from unscene.runs.run_folder import describe_machine
from unscene.scene import Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_ReadImage: TypeAlias = "tuple[NamedImage, NDArray[np.uint8]]"
_FoundImage: TypeAlias = "tuple[NamedImage, NDArray[np.uint8], FoundObjects]"

OPTIONS = (*LIMITS, "tile", "overlap", "scale", "object_size")  # of `decompose_image`
_PIXELS_AT_ONCE = 2**25  # of the images held in memory for one pass of the model
_IMAGES_AT_ONCE = 32
_SHOWN_ALONE, _OUTLINED = 12, 8000  # images and objects that the page shows large, with outlines
_ON_THE_SHEET = 300  # images; a page of thousands would not open


@dataclass(frozen=True)
class DecomposedImages:
    """The outcome of `decompose_paths`."""

    out: Path  # the folder
    images: int  # number of decomposed images
    objects: int  # number of objects found in them
    skipped: tuple[Path, ...]  # the damaged images that were left out
    pictures: tuple[Picture, ...]  # thumbnails of the overlays, at most 300, for a page's `Section`


def decompose_paths(
    loaded: LoadedModel,
    paths: Sequence[Path],
    out: Path,
    *,
    skip_damaged: bool = False,
    overwrite: bool = False,
    fit: FitKind | None = None,
    min_area: int = 1,
    min_score: float = 0.0,
    min_contrast: float = MIN_CONTRAST,
    outline: float = 0.0,
    join_alike: bool = False,
    split_parts: SplitParts = False,
    tile: int | Literal["auto"] | None = None,
    overlap: int | None = None,
    scale: float | None = None,
    object_size: float | None = None,
    frames: Literal["first", "all"] = "first",
    link: Callable[[FoundObjects, NDArray[np.uint8]], FoundObjects] | None = None,
    progress: bool = True,
) -> DecomposedImages:
    """Decompose image files and folders of images.

    A few images are held in memory at a time. All results appear in `out` together at the end: after an error or
    Ctrl-C the folder is unchanged.

    Args:
        loaded: the model.
        paths: files and folders, see `named_images`.
        out: folder of the results; created if it is missing.
        skip_damaged: leave out images that cannot be read.
        overwrite: replace earlier results; other files stay in any case.
        fit: how an image becomes the model's square, as in `fit_image`; by default as in the training,
            `LoadedModel.fit`. Pixels outside of a crop are background.
        min_area: least number of an object's pixels in the image; smaller ones are background.
        min_score: least score of an object; others are background.
        min_contrast: least contrast of an object to the background, see `found_objects.contrast`.
        outline: share of the way from the background's colour to the object's at which an object ends, see `refine`.
        join_alike: neighbours of alike colours become one object, see `alike_neighbours`.
        split_parts: each connected part of a mask is an object of its own; "touching": see `refine`.
        tile: decompose each image in overlapping tiles of this side, as `decompose_large`; "auto": of the side that the
            training's images or crops had; None: "auto" after a training on crops, else each image as one square.
        overlap: pixels that neighbouring tiles share, by default half a tile.
        scale: how many times larger objects are than in the training's images, in pixels; tiles are larger by it.
        object_size: the same, as the diameter of an object in pixels, where the recipe has `data.object_size`.
        frames: of a stack of pages or an animation, decompose the first frame, or all.
        link: `Linker().link` of `unscene.inference.tracking`, if the images are the frames of a sequence, in the order
            of their names (2 before 10); `tracks.csv` and an animation are written too.
        progress: show a bar on stderr.

    Raises:
        DataError: no image, a damaged one, or none that can be read; frames of different sizes.
        RunError: earlier results are in the folder, or it cannot be written.
        RecipeError: a limit is not in 0..1, options contradict each other, or the side of a tile is not known.
    """
    limits: dict[str, Any] = {"min_area": min_area, "min_score": min_score, "min_contrast": min_contrast}
    limits |= {"outline": outline, "join_alike": join_alike, "split_parts": split_parts}
    check_limits(**limits)
    if fit is not None and (tile, scale, object_size, overlap) != (None, None, None, None):
        raise RecipeError("images are fitted to the model's square, or cut into tiles: leave out --fit or --tile.")
    side = None if fit else tile_side(loaded, tile, scale, object_size, overlap)
    loaded = loaded.for_frames() if link and side is None else loaded
    common, named = named_images(paths, frames)
    if link:
        named.sort(key=NamedImage.order)
    fit = fit or loaded.fit
    tiles = None if side is None else {"tile": side, "overlap": side // 2 if overlap is None else overlap}
    names = [image.stem + suffix for image in named for suffix in SUFFIXES]
    names += ["tracks.csv"] if link else []
    sizes: list[tuple[str, int, int]] = []  # (file name, H, W)
    frames_of: list[int | None] = []
    annotations: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    skipped: list[Path] = []
    pictures: list[Picture] = []
    animated: list[Image.Image] = []
    outlined_objects = 0
    with output_folder(out, ["objects.json", "objects.csv", "index.html", *names], overwrite) as unfinished:
        with tqdm(total=len(named), unit=" images", desc=loaded.name, disable=not progress or tiles is not None) as bar:
            images = _read(named, loaded.contrast, skip_damaged, skipped)
            results = (
                _in_squares(loaded, images, fit, limits)
                if tiles is None
                else _in_tiles(loaded, images, limits | tiles | {"progress": progress})
            )
            for name, pixels, found in results:
                found = link(found, pixels) if link else found
                picture = write_image_results(pixels, found, name, unfinished)
                sizes.append((name.file_name, *pixels.shape[:2]))
                frames_of.append(name.frame)
                annotations += coco_annotations(found, image_id=len(sizes))
                if link and len(animated) < _ON_THE_SHEET:
                    animated.append(reduced(picture))
                rows += table_rows(found, name)
                if len(pictures) < _SHOWN_ALONE and outlined_objects + len(found.slots) <= _OUTLINED:
                    pictures.append(outlined(pixels, name, found))
                    outlined_objects += len(found.slots)
                elif len(pictures) < _ON_THE_SHEET:
                    pictures.append(thumbnail(picture, name, found))
                bar.update(len(sizes) + len(skipped) - bar.n)
        if not sizes:
            raise DataError(f"none of the {len(named)} images can be read, the first is {named[0].path}.")
        machine = describe_machine()
        info = {
            "date_created": machine["date"],
            "version": machine["unscene"],
            "images_folder": str(common),
            **({"fit": fit} if tiles is None else tiles),
            **limits,
            "model": loaded.name,
            "weights": dict(loaded.provenance),
        }
        if link:
            for annotation in annotations:
                annotation["track_id"] = annotation["slot"]
            write_text(unfinished / "tracks.csv", csv_text(TRACK_COLUMNS, track_rows(annotations)))
        objects = coco_json(sizes, annotations, info)
        for image, frame in zip(objects["images"], frames_of, strict=True):
            image.update({} if frame is None else {"frame": frame + 1})
        write_text(unfinished / "objects.json", json.dumps(objects, ensure_ascii=False, default=str))
        write_text(unfinished / "objects.csv", csv_text(COLUMNS, rows))
        summary = DecomposedImages(out, len(sizes), len(annotations), tuple(skipped), tuple(pictures))
        text = f"Found by {loaded.name}. objects.json and objects.csv hold all objects."
        if len(pictures) < summary.images:
            text += f" The first {len(pictures)} are shown here."
        if skipped:
            more = f" and {len(skipped) - 20} more" if len(skipped) > 20 else ""
            text += f" Left out, since they cannot be read: {', '.join(map(str, skipped[:20]))}{more}."
        title = f"{summary.images:,} image{'' if summary.images == 1 else 's'} decomposed"
        sections = [_section(text, summary, rows)]
        if link:
            tracks = len({annotation["track_id"] for annotation in annotations})
            about = f"{tracks:,} track{'' if tracks == 1 else 's'}: one colour and number each. tracks.csv holds them."
            sections.insert(0, Section("Tracks", about, (animation(animated, len(sizes)),)))
        write_page(unfinished / "index.html", title, sections)
    return summary


def _section(text: str, summary: DecomposedImages, rows: Sequence[Sequence[Any]]) -> Section:
    areas, scores = (np.array([row[COLUMNS.index(name)] for row in rows], float) for name in ("area", "score"))
    numbers = [("Objects", f"{len(rows):,}"), ("Objects in an image", f"{len(rows) / summary.images:,.1f}")]
    histograms: tuple[Histogram, ...] = ()
    if len(rows):
        numbers.append(("Median area", f"{np.median(areas):,.0f} px"))
        histograms = (
            Histogram.from_values("Areas in pixels", areas, 0, areas.max(), 0),
            Histogram.from_values("Scores", scores, 0, 1, 1),
        )
    return Section("Objects", text, summary.pictures, tuple(numbers), histograms)


def tile_side(
    loaded: LoadedModel,
    tile: int | Literal["auto"] | None = None,
    scale: float | None = None,
    object_size: float | None = None,
    overlap: int | None = None,
) -> int | None:
    """The side of a tile in an image's pixels, or None for images that become squares, as in `decompose_paths`."""
    if sum(option is not None for option in (scale, object_size, None if tile == "auto" else tile)) > 1:
        raise RecipeError("the side of a tile, a scale and an object's size state the same: give one of them.")
    if isinstance(tile, int):
        return tile
    if object_size is not None:
        if not loaded.object_size:
            raise RecipeError(
                f"the recipe of {loaded.name} does not state how large objects were in its training "
                "(data.object_size). Give --tile or --scale instead of --object-size."
            )
        scale = object_size / loaded.object_size
    if tile is None and scale is None and not loaded.crop:
        if overlap is not None:
            raise RecipeError("an overlap needs tiles: give the side of a tile as well (--tile).")
        return None
    if loaded.tile is None:
        raise RecipeError(
            f"{loaded.name} was trained on images of any size as one square, so the side of a tile is not known. "
            "Give it: --tile PIXELS."
        )
    if scale is not None and not 0.01 <= scale <= 100:
        raise RecipeError(f"objects can be .01 to 100 times as large as in the training, not {scale:g} times.")
    return max(1, round(loaded.tile * (scale or 1)))


def decompose_image(
    loaded: LoadedModel,
    pixels: NDArray[np.uint8],
    *,
    tile: int | Literal["auto"] | None = None,
    overlap: int | None = None,
    scale: float | None = None,
    object_size: float | None = None,
    **limits: Any,
) -> FoundObjects:
    """Return the objects of one image [H, W, 3] uint8 of any size.

    The options are those of `decompose_paths`, by the names in `OPTIONS`. RecipeError: an unknown or impossible one.
    ShapeError: the image is no array, or another one.
    """
    check_options(limits, OPTIONS, "decompose_image")
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        raise ShapeError(f"an image must be an array, uint8 [H, W, 3], not {kind}: numpy.asarray may make one of it.")
    limits = {"min_area": 1, "min_score": 0.0, "min_contrast": MIN_CONTRAST} | limits
    check_limits(**limits)
    side = tile_side(loaded, tile, scale, object_size, overlap)
    if side is None:
        return next(_one_pass(loaded, [(NamedImage(Path(), "", ""), pixels)], loaded.fit, limits))[2]
    shared = side // 2 if overlap is None else overlap
    return decompose_large(loaded, pixels, tile=side, overlap=shared, progress=False, **limits)


def _read(
    images: Sequence[NamedImage], contrast: ContrastSettings, skip_damaged: bool, skipped: list[Path]
) -> Iterator[_ReadImage]:
    for name in images:
        try:
            yield name, read_image(name.path, name.frame, contrast)
        except DataError as error:
            if not skip_damaged:
                raise DataError(f"{error} Pass --skip-damaged to leave such images out.") from error
            skipped.append(name.path)


def _in_tiles(loaded: LoadedModel, images: Iterable[_ReadImage], how: Mapping[str, Any]) -> Iterator[_FoundImage]:
    for name, pixels in images:
        yield name, pixels, decompose_large(loaded, pixels, **how)


def _in_squares(
    loaded: LoadedModel, images: Iterable[_ReadImage], fit: FitKind, limits: Mapping[str, Any]
) -> Iterator[_FoundImage]:
    """Decompose each image as one square; batches are bounded by the memory of their images."""
    batch: list[_ReadImage] = []
    for name, pixels in images:
        held = sum(other.size for _, other in batch) + pixels.size
        if batch and (held // 3 > _PIXELS_AT_ONCE or len(batch) == _IMAGES_AT_ONCE):
            yield from _one_pass(loaded, batch, fit, limits)
            batch = []
        batch.append((name, pixels))
    if batch:
        yield from _one_pass(loaded, batch, fit, limits)


def _one_pass(
    loaded: LoadedModel, batch: Sequence[_ReadImage], fit: FitKind, limits: Mapping[str, Any]
) -> Iterator[_FoundImage]:
    squares, geometries = zip(*(fit_image(pixels, loaded.size, fit) for _, pixels in batch), strict=True)
    decomposition = loaded.decompose(Scene.from_batch({"image": np.stack(squares)}).images)
    options = {option: limit for option, limit in limits.items() if option != "min_score"}
    for index, (name, pixels) in enumerate(batch):
        found = found_objects(decomposition, index, geometries[index], limits["min_score"])
        yield name, pixels, refine(found, pixels, **options)

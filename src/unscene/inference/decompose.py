"""Decompose your own images, of any size, each at its own resolution.

For every image `NAME`, in the folders of the images:

    NAME.overlay.png   the image with masks, boxes and numbers
    NAME.masks.png     label map: a palette image, 0 is the background, 1.. the slots
    NAME.npz           `slots` [N], `areas` [N], `boxes` [N, 4] of the masks, `scores` [N], `image_size` (H, W); if the
                       model has them `model_boxes` [N, 4], `latents` [N, D], `locations` [N, 2], y and x in 0..1

and for all together `objects.json` (COCO) and `index.html` (a contact sheet).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unscene.data.image_file import read_image
from unscene.data.image_resize import FitKind, ResizeGeometry, fit_image
from unscene.errors import DataError
from unscene.files import output_folder, write_text
from unscene.inference.found_objects import coco_annotations, coco_json, found_objects
from unscene.inference.image_files import SUFFIXES, NamedImage, named_images, thumbnail, write_image_results
from unscene.report.page import Picture, Section, write_page
from unscene.runs.run_folder import describe_machine
from unscene.scene import Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_ReadImage: TypeAlias = "tuple[NamedImage, NDArray[np.uint8], NDArray[np.uint8], ResizeGeometry]"

_PIXELS_AT_ONCE = 2**25  # of the images held in memory for one pass of the model
_IMAGES_AT_ONCE = 32
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
    frames: Literal["first", "all"] = "first",
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
        frames: of a stack of pages or an animation, decompose the first frame, or all.
        progress: show a bar on stderr.

    Raises:
        DataError: no image, a damaged one, or none that can be read.
        RunError: earlier results are in the folder, or it cannot be written.
    """
    common, named = named_images(paths, frames)
    fit = fit or loaded.fit
    names = [image.stem + suffix for image in named for suffix in SUFFIXES]
    sizes: list[tuple[str, int, int]] = []  # (file name, H, W)
    frames_of: list[int | None] = []
    annotations: list[dict[str, Any]] = []
    skipped: list[Path] = []
    pictures: list[Picture] = []
    with output_folder(out, ["objects.json", "index.html", *names], overwrite) as unfinished:
        with tqdm(total=len(named), unit=" images", desc=loaded.name, disable=not progress) as bar:
            for batch in _batches(named, loaded.size, fit, skip_damaged, skipped):
                scene = Scene.from_batch({"image": np.stack([square for _, _, square, _ in batch])})
                decomposition = loaded.decompose(scene.images)
                for index, (name, pixels, _, geometry) in enumerate(batch):
                    found = found_objects(decomposition, index, geometry, min_area)
                    picture = write_image_results(pixels, found, name, unfinished)
                    sizes.append((name.file_name, geometry.height, geometry.width))
                    frames_of.append(name.frame)
                    annotations += coco_annotations(found, image_id=len(sizes))
                    if len(pictures) < _ON_THE_SHEET:
                        pictures.append(thumbnail(picture, name, found))
                bar.update(len(sizes) + len(skipped) - bar.n)
        if not sizes:
            raise DataError(f"none of the {len(named)} images can be read, the first is {named[0].path}.")
        machine = describe_machine()
        info = {
            "date_created": machine["date"],
            "version": machine["unscene"],
            "images_folder": str(common),
            "fit": fit,
            "min_area": min_area,
            "model": loaded.name,
            "weights": dict(loaded.provenance),
        }
        objects = coco_json(sizes, annotations, info)
        for image, frame in zip(objects["images"], frames_of, strict=True):
            image.update({} if frame is None else {"frame": frame + 1})
        write_text(unfinished / "objects.json", json.dumps(objects, ensure_ascii=False, default=str))
        summary = DecomposedImages(out, len(sizes), len(annotations), tuple(skipped), tuple(pictures))
        text = f"Objects: {summary.objects:,}, found by {loaded.name}. objects.json holds them all."
        if len(pictures) < summary.images:
            text += f" The first {len(pictures)} are shown here."
        if skipped:
            more = f" and {len(skipped) - 20} more" if len(skipped) > 20 else ""
            text += f" Left out, since they cannot be read: {', '.join(map(str, skipped[:20]))}{more}."
        title = f"{summary.images:,} image{'' if summary.images == 1 else 's'} decomposed"
        write_page(unfinished / "index.html", title, [Section("Overlays", text, summary.pictures)])
    return summary


def _batches(
    images: Sequence[NamedImage], size: int, fit: FitKind, skip_damaged: bool, skipped: list[Path]
) -> Iterator[list[_ReadImage]]:
    """Read images in batches of bounded memory: pixels [H, W, 3], the model's square [S, S, 3], and how it arose."""
    batch: list[_ReadImage] = []
    held = 0
    for name in images:
        try:
            pixels = read_image(name.path, name.frame)
        except DataError as error:
            if not skip_damaged:
                raise DataError(f"{error} Pass --skip-damaged to leave such images out.") from error
            skipped.append(name.path)
            continue
        if batch and (held + pixels.size // 3 > _PIXELS_AT_ONCE or len(batch) == _IMAGES_AT_ONCE):
            yield batch
            batch, held = [], 0
        batch.append((name, pixels, *fit_image(pixels, size, fit)))
        held += pixels.size // 3
    if batch:
        yield batch

"""Decompose your own images, of any size, each at its own resolution; the results are written whole or not at all.

For every image `NAME`, in folders as the images are:

    NAME.overlay.png   the image with masks, boxes and numbers
    NAME.masks.png     label map: a palette image, 0 is the background, 1.. the slots
    NAME.npz           `slots` [N], `areas` [N], `boxes` [N, 4], `scores` [N], `latents` [N, D], `image_size` (H, W);
                       `locations` [N, 2], y and x in 0..1, of a model that has them

and for all together `objects.json` (COCO) and `index.html` (a contact sheet).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from unscene.data.image_folder import read_image
from unscene.data.image_resize import FitKind, fit_image
from unscene.errors import DataError
from unscene.files import output_folder, write_text
from unscene.inference.coco_json import coco_annotations, coco_json
from unscene.inference.found_objects import found_objects
from unscene.inference.image_files import SUFFIXES, ReadImage, thumbnail, write_image_results
from unscene.inference.output_names import NamedImage, named_images
from unscene.report.page import Section, write_page
from unscene.report.results import Picture
from unscene.runs.hardware import describe_machine
from unscene.scene import Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_PIXELS_AT_ONCE = 2**25  # of the images held in memory for one pass of the model
_IMAGES_AT_ONCE = 32
_ON_THE_SHEET = 300  # images; a page of thousands would not open


@dataclass(frozen=True)
class DecomposedImages:
    """What `decompose_paths` did.

    Attributes:
        out: the folder.
        images: how many were decomposed.
        objects: how many were found in them.
        skipped: the damaged images that were left out.
        pictures: thumbnails of the overlays, at most 300, for a page's `Section`.
    """

    out: Path
    images: int
    objects: int
    skipped: tuple[Path, ...]
    pictures: tuple[Picture, ...]


@dataclass
class _Collected:
    """What is known of the images written so far."""

    images: list[tuple[str, int, int]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def decompose_paths(
    loaded: LoadedModel,
    paths: Sequence[Path],
    out: Path,
    *,
    skip_damaged: bool = False,
    overwrite: bool = False,
    fit: FitKind | None = None,
    progress: bool = True,
) -> DecomposedImages:
    """Decompose image files and folders of images.

    A few images are held in memory at a time. All results appear in `out` at the end, at once: after an error or Ctrl-C
    the folder is as it was before.

    Args:
        loaded: the model.
        paths: files and folders, see `named_images`.
        out: folder of the results; created if it is missing.
        skip_damaged: leave out images that cannot be read.
        overwrite: replace earlier results; other files stay in any case.
        fit: how an image is brought to the model's square, as in `fit_image`; by default as in the training,
            `LoadedModel.fit`. Outside of a crop all is background.
        progress: show a bar on stderr.

    Raises:
        DataError: no image, a damaged one, or none that can be read.
        RunError: earlier results are in the folder, or it cannot be written.
    """
    common, images = named_images(paths)
    fit = fit or loaded.fit
    names = [image.stem + suffix for image in images for suffix in SUFFIXES]
    collected = _Collected()
    with output_folder(out, ["objects.json", "index.html", *names], overwrite) as unfinished:
        with tqdm(total=len(images), unit=" images", desc=loaded.name, disable=not progress) as bar:
            for batch in _batches(images, loaded.size, fit, skip_damaged, collected.skipped):
                _write_batch(loaded, batch, unfinished, collected)
                bar.update(len(collected.images) + len(collected.skipped) - bar.n)
        if not collected.images:
            raise DataError(f"none of the {len(images)} images can be read, the first is {images[0].path}.")
        _write_sheet_and_objects(loaded, unfinished, common, fit, collected)
    return DecomposedImages(
        out, len(collected.images), len(collected.annotations), tuple(collected.skipped), tuple(collected.pictures)
    )


def _batches(
    images: Sequence[NamedImage], size: int, fit: FitKind, skip_damaged: bool, skipped: list[Path]
) -> Iterator[list[ReadImage]]:
    """Read images, as many at once as fit into a bounded memory."""
    batch: list[ReadImage] = []
    pixels = 0
    for name in images:
        try:
            image = read_image(name.path)
        except DataError as error:
            if not skip_damaged:
                raise DataError(f"{error} Pass --skip-damaged to leave such images out.") from error
            skipped.append(name.path)
            continue
        if batch and (pixels + image.size // 3 > _PIXELS_AT_ONCE or len(batch) == _IMAGES_AT_ONCE):
            yield batch
            batch, pixels = [], 0
        square, geometry = fit_image(image, size, fit)
        batch.append(ReadImage(name, image, square, geometry))
        pixels += image.size // 3
    if batch:
        yield batch


def _write_batch(loaded: LoadedModel, batch: list[ReadImage], folder: Path, collected: _Collected) -> None:
    scene = Scene.from_batch({"image": np.stack([read.square for read in batch])})
    decomposition = loaded.decompose(scene.images)
    for index, read in enumerate(batch):
        found = found_objects(decomposition, index, read.geometry)
        picture = write_image_results(read, found, folder)
        position = len(collected.images)
        collected.images.append((read.name.file_name, read.geometry.height, read.geometry.width))
        collected.annotations += coco_annotations(found, image_id=position + 1)
        if position < _ON_THE_SHEET:
            collected.pictures.append(thumbnail(picture, read.name, found))


def _write_sheet_and_objects(
    loaded: LoadedModel, folder: Path, common: Path, fit: FitKind, collected: _Collected
) -> None:
    machine = describe_machine()
    info = {
        "date_created": machine["date"],
        "version": machine["unscene"],
        "images_folder": str(common),
        "fit": fit,
        "model": loaded.name,
        "weights": dict(loaded.provenance),
    }
    found = coco_json(collected.images, collected.annotations, info)
    write_text(folder / "objects.json", json.dumps(found, ensure_ascii=False, default=str))
    images, shown = len(collected.images), len(collected.pictures)
    title = f"{images:,} image{'' if images == 1 else 's'} decomposed"
    text = f"Objects: {len(collected.annotations):,}, found by {loaded.name}. objects.json holds them all."
    if shown < images:
        text += f" The first {shown} are shown here."
    if collected.skipped:
        text += f" Left out, since they cannot be read: {', '.join(str(path) for path in collected.skipped[:20])}"
        text += f" and {len(collected.skipped) - 20} more." if len(collected.skipped) > 20 else "."
    section = Section("Overlays", text, tuple(collected.pictures))
    write_page(folder / "index.html", [], title, [section])

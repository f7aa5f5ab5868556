"""Decompose your own images, of any size, each at its own resolution; the results are written whole or not at all.

For every image `NAME`, in folders as the images are:

    NAME.overlay.png   the image with masks, boxes and numbers
    NAME.masks.png     label map: a palette image, 0 is the background, 1.. the slots
    NAME.npz           `slots` [N], `areas` [N], `boxes` [N, 4], `scores` [N], `latents` [N, D], `image_size` (H, W);
                       `locations` [N, 2], y and x in 0..1, of a model that has them; on request `soft_masks`
                       [K, S, S], the model's own masks of its square

and for all together `objects.json` (COCO) and `index.html` (a contact sheet).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from unscene.data.image_folder import read_image
from unscene.data.image_resize import FitKind, fit_image
from unscene.errors import DataError
from unscene.inference.coco_json import CocoObject, coco_json
from unscene.inference.found_objects import found_objects
from unscene.inference.image_files import SUFFIXES, ReadImage, coco_objects, thumbnail, write_image_results
from unscene.inference.output_names import NamedImage, named_images
from unscene.report.page import Section, write_page
from unscene.report.results import Picture
from unscene.runs.hardware import describe_machine
from unscene.runs.output_folder import check_nothing_replaced, publish, unfinished_folder
from unscene.runs.run_folder import write_text

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
    objects: list[CocoObject] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def decompose_paths(
    loaded: LoadedModel,
    paths: Sequence[Path],
    out: Path,
    *,
    skip_damaged: bool = False,
    overwrite: bool = False,
    min_area: int = 0,
    fit: FitKind = "stretch",
    soft_masks: bool = False,
    progress: bool = True,
) -> DecomposedImages:
    """Decompose image files and folders of images.

    Images are read, decomposed, written and forgotten, a few at a time. All results appear in `out` at the end, at
    once: an error or Ctrl-C leaves nothing behind, and nothing of before changed.

    Args:
        loaded: the model.
        paths: files and folders, see `named_images`.
        out: folder of the results; made if need be.
        skip_damaged: leave out images that cannot be read.
        overwrite: replace results that are there; other files stay in any case.
        min_area: objects of fewer pixels (of the image) count as background.
        fit: how an image is brought to the model's square: "stretch", "pad" or "crop".
        soft_masks: keep the model's own masks in the `.npz` file.
        progress: show a bar on stderr.

    Raises:
        DataError: no image, a damaged one, or none that can be read.
        RunError: results are there already, or the folder cannot be written.
    """
    common, images = named_images(paths)
    names = [each.stem + suffix for each in images for suffix in SUFFIXES]
    check_nothing_replaced(out, ["objects.json", "index.html", *names], overwrite)
    collected = _Collected()
    with unfinished_folder(out) as unfinished:
        with tqdm(total=len(images), unit=" images", desc=loaded.name, disable=not progress) as bar:
            for batch in _batches(images, loaded.size, fit, skip_damaged, collected.skipped):
                _write_batch(loaded, batch, unfinished, min_area, soft_masks, collected)
                bar.update(len(collected.images) + len(collected.skipped) - bar.n)
        if not collected.images:
            raise DataError(f"none of the {len(images)} images can be read, the first is {images[0].path}.")
        _write_sheet_and_objects(loaded, unfinished, common, fit, collected)
        publish(unfinished, out, last="objects.json")
    return DecomposedImages(
        out, len(collected.images), len(collected.objects), tuple(collected.skipped), tuple(collected.pictures)
    )


def _batches(
    images: Sequence[NamedImage], size: int, fit: FitKind, skip_damaged: bool, skipped: list[Path]
) -> Iterator[list[ReadImage]]:
    """Read images, as many at once as fit into a bounded memory."""
    batch: list[ReadImage] = []
    pixels = 0
    for each in images:
        try:
            image = read_image(each.path)
        except DataError as error:
            if not skip_damaged:
                raise DataError(f"{error} Pass --skip-damaged to leave such images out.") from error
            skipped.append(each.path)
            continue
        if batch and (pixels + image.size // 3 > _PIXELS_AT_ONCE or len(batch) == _IMAGES_AT_ONCE):
            yield batch
            batch, pixels = [], 0
        square, geometry = fit_image(image, size, fit)
        batch.append(ReadImage(each, image, square, geometry))
        pixels += image.size // 3
    if batch:
        yield batch


def _write_batch(
    loaded: LoadedModel,
    batch: list[ReadImage],
    folder: Path,
    min_area: int,
    soft_masks: bool,
    collected: _Collected,
) -> None:
    squares = torch.from_numpy(np.stack([each.square for each in batch])).permute(0, 3, 1, 2).float() / 255
    decomposition = loaded.decompose(squares)
    for index, each in enumerate(batch):
        found = found_objects(decomposition, index, each.fit, min_area)
        own = decomposition.masks()[index, :, 0].float().numpy() if soft_masks else None
        drawn = write_image_results(each, found, own, folder)
        position = len(collected.images)
        collected.images.append((each.name.file_name, each.fit.height, each.fit.width))
        collected.objects += coco_objects(found, position)
        if position < _ON_THE_SHEET:
            collected.pictures.append(thumbnail(drawn, each.name, found))


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
    found = coco_json(collected.images, collected.objects, info)
    write_text(folder / "objects.json", json.dumps(found, ensure_ascii=False, default=str))
    images, shown = len(collected.images), len(collected.pictures)
    title = f"{images:,} image{'' if images == 1 else 's'} decomposed"
    text = f"Objects: {len(collected.objects):,}, found by {loaded.name}. objects.json holds them all."
    if shown < images:
        text += f" The first {shown} are shown here."
    if collected.skipped:
        text += f" Left out, since they cannot be read: {', '.join(str(path) for path in collected.skipped[:20])}"
        text += f" and {len(collected.skipped) - 20} more." if len(collected.skipped) > 20 else "."
    section = Section("Overlays", text, tuple(collected.pictures))
    write_page(folder / "index.html", [], title, [section])

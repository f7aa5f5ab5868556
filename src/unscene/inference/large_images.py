"""Decompose an image larger than those of the training, tile by tile at the training's scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from tqdm import tqdm

from unscene.data.image_resize import fit_image
from unscene.inference.found_objects import FoundObjects, found_objects
from unscene.inference.tiles import MergedObjects, TileObject, cut_tile, merge_tiles, tile_objects, tile_windows
from unscene.scene import Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_TILES_AT_ONCE = 32


def decompose_large(
    loaded: LoadedModel,
    pixels: NDArray[np.uint8],
    *,
    tile: int,
    overlap: int,
    min_score: float = 0.0,
    min_area: int = 1,
    progress: bool = True,
) -> FoundObjects:
    """Decompose an image in overlapping tiles and merge the objects, as `unscene.inference.tiles` says.

    Memory besides the image and its label map grows with the objects only: few tiles are held at a time. The objects
    have no boxes or locations of the model, which are those of single tiles.

    Args:
        loaded: the model.
        pixels: [H, W, 3] uint8.
        tile: side of a tile in the image's pixels; the model sees it resized to its own size.
        overlap: pixels that neighbouring tiles share; at least the diameter of the largest object.
        min_score: objects with a lower score are left out before the tiles are merged.
        min_area: objects of fewer pixels are left out.
        progress: show a bar on stderr.

    Raises:
        RecipeError: the overlap is not below the tile.
    """
    height, width = pixels.shape[:2]
    objects = _objects_of_tiles(loaded, pixels, tile, overlap, min_score, progress)
    return _as_found(merge_tiles(objects, height, width), min_area)


def _as_found(merged: MergedObjects, min_area: int) -> FoundObjects:
    """The merged objects of enough pixels, numbered anew from 1."""
    areas = np.bincount(merged.labels.ravel(), minlength=len(merged.objects) + 1)
    kept = np.flatnonzero(areas[1:] >= min_area)
    new_labels = np.zeros(len(areas), np.int32)
    new_labels[kept + 1] = np.arange(1, len(kept) + 1)
    labels = new_labels[merged.labels]
    objects = [merged.objects[index] for index in kept.tolist()]
    boxes = np.zeros((len(objects), 4), np.float32)
    for row, (rows, columns) in enumerate(find_objects(labels)):
        boxes[row] = columns.start, rows.start, columns.stop, rows.stop
    latents = [item.latent for item in objects if item.latent is not None]
    return FoundObjects(
        labels=labels,
        slots=np.arange(1, len(objects) + 1),
        areas=areas[kept + 1].astype(np.int64),
        boxes=boxes,
        scores=np.array([item.score for item in objects], np.float32),
        model_boxes=None,
        latents=np.stack(latents) if latents else None,
        locations=None,
    )


def _objects_of_tiles(
    loaded: LoadedModel, pixels: NDArray[np.uint8], tile: int, overlap: int, min_score: float, progress: bool
) -> Iterator[TileObject]:
    height, width = pixels.shape[:2]
    windows = tile_windows(height, width, tile, overlap)
    with tqdm(total=len(windows), unit=" tiles", desc=loaded.name, leave=False, disable=not progress) as bar:
        for start in range(0, len(windows), _TILES_AT_ONCE):
            batch = windows[start : start + _TILES_AT_ONCE]
            fitted = [fit_image(cut_tile(pixels, window), loaded.size, "stretch") for window in batch]
            decomposition = loaded.decompose(Scene.from_batch({"image": np.stack([s for s, _ in fitted])}).images)
            for index, window in enumerate(batch):
                found = found_objects(decomposition, index, fitted[index][1], min_score=min_score)
                latents = [None] * len(found.slots) if found.latents is None else found.latents
                answers = zip(found.slots.tolist(), found.scores.tolist(), latents, strict=True)
                yield from tile_objects(found.labels, answers, window, (height, width))
            bar.update(len(batch))

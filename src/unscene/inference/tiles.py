"""Decompose images larger than the model's square: overlapping tiles, whose objects are merged into one label map.

A tile cuts the objects at its border. With an overlap of at least an object's diameter, each object lies wholly inside
one tile. Therefore:

1. An object that touches a border of its tile which is not a border of the image is a *cut* object.
2. Objects that are not cut are painted first, those nearest to the middle of their tile before others, then the cut
   ones. An object that covers more than half of a painted one, or is covered by it by more than half, is the same
   object seen from another tile. It is left out, or, if both are cut, joined with the painted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from tqdm import tqdm

from unscene.data.image_resize import Rectangle, fit_image
from unscene.errors import RecipeError
from unscene.inference.found_objects import MIN_CONTRAST, FoundObjects, SplitParts, found_objects, mask_parts, refine
from unscene.scene import Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_Number = TypeVar("_Number", bound=np.generic)
_TILES_AT_ONCE = 32
_SAME = 0.5  # shared part of the smaller of two masks, above which they show the same object


def decompose_large(
    loaded: LoadedModel,
    pixels: NDArray[np.uint8],
    *,
    tile: int,
    overlap: int,
    min_score: float = 0.0,
    min_area: int = 1,
    min_contrast: float = MIN_CONTRAST,
    outline: float = 0.0,
    join_alike: bool = False,
    split_parts: SplitParts = False,
    progress: bool = True,
) -> FoundObjects:
    """Decompose an image in overlapping tiles and merge the objects, as this module says.

    The objects have no boxes or locations of the model, which are those of single tiles.

    Args:
        loaded: the model.
        pixels: [H, W, 3] uint8.
        tile: side of a tile in the image's pixels; the model sees it resized to its own size.
        overlap: pixels that neighbouring tiles share; at least the diameter of the largest object.
        min_score: objects with a lower score are left out before the tiles are merged.
        min_area: objects of fewer pixels are left out.
        min_contrast: objects of a lower contrast are left out, see `found_objects.contrast`.
        outline: as in `refine`.
        join_alike: as in `refine`.
        split_parts: as in `refine`.
        progress: show a bar with the time left on stderr.

    Raises:
        RecipeError: the overlap is not below the tile.
    """
    height, width = pixels.shape[:2]
    objects = _objects_of_tiles(loaded, pixels, tile, overlap, min_score, bool(split_parts), progress)
    found = _as_found(merge_tiles(objects, height, width))
    return refine(
        found,
        pixels,
        min_area=min_area,
        min_contrast=min_contrast,
        outline=outline,
        join_alike=join_alike,
        split_parts=split_parts,
        renumber=True,
    )


def _as_found(merged: MergedObjects) -> FoundObjects:
    boxes, areas = np.zeros((len(merged.objects), 4), np.float32), np.zeros(len(merged.objects), np.int64)
    for row, (rows, columns) in enumerate(find_objects(merged.labels)):
        boxes[row] = columns.start, rows.start, columns.stop, rows.stop
        areas[row] = (merged.labels[rows, columns] == row + 1).sum()
    latents = [item.latent for item in merged.objects if item.latent is not None]
    return FoundObjects(
        labels=merged.labels,
        slots=np.arange(1, len(areas) + 1),
        areas=areas,
        boxes=boxes,
        scores=np.array([item.score for item in merged.objects], np.float32),
        model_boxes=None,
        latents=np.stack(latents) if latents else None,
        locations=None,
    )


def _objects_of_tiles(
    loaded: LoadedModel,
    pixels: NDArray[np.uint8],
    tile: int,
    overlap: int,
    min_score: float,
    split_parts: bool,
    progress: bool,
) -> Iterator[TileObject]:
    height, width = pixels.shape[:2]
    windows = tile_windows(height, width, tile, overlap)
    with tqdm(total=len(windows), unit=" tiles", desc=loaded.name, leave=False, disable=not progress) as bar:
        for start in range(0, len(windows), _TILES_AT_ONCE):
            batch = windows[start : start + _TILES_AT_ONCE]
            fitted = [fit_image(cut_tile(pixels, window), loaded.size, "stretch") for window in batch]
            decomposition = loaded.decompose(Scene.from_batch({"image": np.stack([s for s, _ in fitted])}).images)
            for index, window in enumerate(batch):
                found = found_objects(decomposition, index, fitted[index][1], min_score)
                latents = [None] * len(found.slots) if found.latents is None else found.latents
                answers = zip(found.slots.tolist(), found.scores.tolist(), latents, strict=True)
                yield from tile_objects(found.labels, answers, window, (height, width), split_parts)
            bar.update(len(batch))


def tile_windows(height: int, width: int, tile: int, overlap: int) -> list[Rectangle]:
    """Windows `x1 y1 x2 y2` of side `tile` that cover an image, with at least `overlap` pixels in common.

    They have equal steps as nearly as whole pixels allow. A side shorter than a tile gets one window that is longer
    than the image.

    Raises:
        RecipeError: the overlap is negative or not below the tile, or the tile has no pixel.
    """
    if not 0 <= overlap < tile:
        raise RecipeError(
            f"a tile must have 1 pixel or more, and the overlap must be from 0 to below it, but they are {tile} and "
            f"{overlap}."
        )
    return [(x, y, x + tile, y + tile) for y in _starts(height, tile, overlap) for x in _starts(width, tile, overlap)]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    count = 1 + -(-(length - tile) // (tile - overlap))
    return [round(start) for start in np.linspace(0, length - tile, count).tolist()]


def cut_tile(image: NDArray[_Number], window: Rectangle) -> NDArray[_Number]:
    """The window of an image [H, W, ...]; what lies beyond the image mirrors it."""
    x1, y1, x2, y2 = window
    part = image[y1:y2, x1:x2]
    missing = [(0, y2 - y1 - part.shape[0]), (0, x2 - x1 - part.shape[1])]
    return np.pad(part, missing + [(0, 0)] * (image.ndim - 2), mode="symmetric") if np.any(missing) else part


@dataclass(frozen=True, slots=True)
class TileObject:
    """One object of one tile, in the pixels of the large image.

    Attributes:
        y, x: top left of `mask` in the image.
        mask: [h, w] bool, without empty border rows and columns.
        score: in [0, 1].
        latent: [D] float32, or None.
        window: the tile.
        cut: the object touches a border of the tile inside the image.
    """

    y: int
    x: int
    mask: NDArray[np.bool_]
    score: float
    latent: NDArray[np.float32] | None
    window: Rectangle
    cut: bool

    @property
    def distance(self) -> float:
        """From the middle of the tile to that of the mask's box, in tiles."""
        x1, y1, x2, y2 = self.window
        height, width = self.mask.shape
        dx, dy = self.x + width / 2 - (x1 + x2) / 2, self.y + height / 2 - (y1 + y2) / 2
        return float(max(abs(dx) / (x2 - x1), abs(dy) / (y2 - y1)))


def tile_objects(
    labels: NDArray[np.integer],
    answers: Iterable[tuple[int, float, NDArray[np.float32] | None]],
    window: Rectangle,
    image_size: tuple[int, int],
    split_parts: bool = False,
) -> Iterator[TileObject]:
    """The objects of a tile's label map [tile, tile], clipped to the image.

    Args:
        labels: 0 is the background.
        answers: label, score and latent of each object; other labels are left out.
        window: the tile.
        image_size: H and W of the image.
        split_parts: each connected part is an object of its own.
    """
    x1, y1, x2, y2 = window
    height, width = image_size
    labels = labels[: height - y1, : width - x1]
    for label, score, latent in answers:
        for rows, columns, part in mask_parts(labels == label, split_parts):
            cut = (
                (rows.start == 0 and y1 > 0)
                or (columns.start == 0 and x1 > 0)
                or (rows.stop == y2 - y1 and y2 < height)
                or (columns.stop == x2 - x1 and x2 < width)
            )
            yield TileObject(y1 + rows.start, x1 + columns.start, part.copy(), score, latent, window, cut)


@dataclass
class MergedObjects:
    """The objects of a large image: `labels` [H, W] int32, 0 is the background; `objects[n - 1]` belongs to label n.

    An object that was joined from several tiles has the score and the latent of its first part.
    """

    labels: NDArray[np.int32]
    objects: list[TileObject]


def merge_tiles(objects: Iterable[TileObject], height: int, width: int) -> MergedObjects:
    """Merge the objects of overlapping tiles of an image, as the module says; labels follow the order of painting."""
    labels = np.zeros((height, width), np.int32)
    painted: list[TileObject] = []
    windows: list[Rectangle] = []  # around all tiles that saw a part of the object
    for item in sorted(objects, key=lambda item: (item.cut, item.distance)):
        part = labels[item.y : item.y + item.mask.shape[0], item.x : item.x + item.mask.shape[1]]
        covered = np.bincount(part[item.mask], minlength=1)
        free = int(covered[0])
        covered[0] = 0
        other = int(covered.argmax())
        label = len(painted) + 1
        if covered[other]:
            seen_by_both = _common(item.window, windows[other - 1])
            smaller = min(_pixels_in(item.mask, item.y, item.x, seen_by_both), _pixels_of(labels, other, seen_by_both))
            if covered[other] > _SAME * smaller:
                if not (item.cut and painted[other - 1].cut):
                    continue
                label = other
                windows[other - 1] = _around(item.window, windows[other - 1])
            elif free <= _SAME * item.mask.sum():
                continue  # several painted objects cover it
        part[item.mask & (part == 0)] = label
        if label > len(painted):
            painted.append(item)
            windows.append(item.window)
    return MergedObjects(labels, painted)


def _common(a: Rectangle, b: Rectangle) -> Rectangle:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _around(a: Rectangle, b: Rectangle) -> Rectangle:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _pixels_in(mask: NDArray[np.bool_], y: int, x: int, window: Rectangle) -> int:
    x1, y1, x2, y2 = window
    return int(mask[max(y1 - y, 0) : max(y2 - y, 0), max(x1 - x, 0) : max(x2 - x, 0)].sum())


def _pixels_of(labels: NDArray[np.int32], label: int, window: Rectangle) -> int:
    x1, y1, x2, y2 = window
    return int((labels[y1:y2, x1:x2] == label).sum())

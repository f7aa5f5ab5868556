"""From an image of any size to the model's square, and back again with the masks and boxes of the square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unscene.errors import RecipeError, ShapeError, check_shape, did_you_mean

FitKind = Literal["crop", "pad", "stretch"]
Rectangle = tuple[int, int, int, int]  # x1 y1 x2 y2 in pixels, end exclusive


@dataclass(frozen=True)
class ResizeGeometry:
    """How an image was resized to the square: its part `source` became the part `target` of the square."""

    height: int  # of the image
    width: int
    size: int  # side of the square
    source: Rectangle  # in the image; smaller than the image for "crop"
    target: Rectangle  # in the square; smaller than the square for "pad"

    def resize_labels(self, labels: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return a label map [H, W] of the image as [size, size], as `fit_image` resized the image.

        A pixel has the label of the nearest pixel; 0 where the square shows nothing of the image.
        """
        check_shape(labels, f"{self.height} {self.width}", "labels")
        left, top, right, bottom = self.target
        square = np.zeros((self.size, self.size), labels.dtype)
        nearest = Image.fromarray(labels).resize((right - left, bottom - top), Image.Resampling.NEAREST, self.source)
        square[top:bottom, left:right] = np.asarray(nearest)
        return square

    def restore(
        self, mask: NDArray[np.floating], fill: float = 0.0, rows: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Return a mask [size, size] of the square at the image's own resolution, [H, W] float32.

        Bilinear, so that masks which sum to 1 still do, and smoothed where the image is smaller than the square. Pixels
        outside of a crop get `fill`. `rows` limits the result to these rows of the image, the end exclusive.
        """
        check_shape(mask, f"{self.size} {self.size}", "mask")
        first, last = rows or (0, self.height)
        restored = np.full((last - first, self.width), fill, np.float32)
        (x1, y1, x2, y2), (left, top, right, bottom) = self.source, self.target
        upper, lower = max(y1, first), min(y2, last)
        if upper < lower:
            scale = (bottom - top) / (y2 - y1)
            part = (0, (upper - y1) * scale, right - left, min((lower - y1) * scale, bottom - top))
            shown = Image.fromarray(mask[top:bottom, left:right].astype(np.float32))
            resized = shown.resize((x2 - x1, lower - upper), Image.Resampling.BILINEAR, part)
            restored[upper - first : lower - first, x1:x2] = np.asarray(resized)
        return restored

    def restore_boxes(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return boxes [N, 4] of the square in the image's own pixels, float32; a zero row is no box.

        They are clipped to the part of the image that the square shows; a zero row where nothing is left.
        """
        check_shape(boxes, "N 4", "boxes")
        restored = self._in_image(boxes.reshape(-1, 2)).reshape(-1, 4)
        restored[(restored[:, 2:] <= restored[:, :2]).any(axis=1)] = 0
        return restored.astype(np.float32)

    def restore_locations(self, locations: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return locations [N, 2], y and x in 0..1 of the square, as y and x in 0..1 of the image, float32.

        They are clipped to the part of the image that the square shows.
        """
        check_shape(locations, "N 2", "locations")
        restored = self._in_image(locations[:, ::-1] * self.size) / (self.width, self.height)
        return restored[:, ::-1].astype(np.float32)

    def _in_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points [N, 2], x and y in the square, in the image's pixels, clipped to the part that the square shows."""
        source, target = np.array(self.source, np.float64), np.array(self.target, np.float64)
        scale = (source[2:] - source[:2]) / (target[2:] - target[:2])
        return ((points - target[:2]) * scale + source[:2]).clip(source[:2], source[2:])


def fit_image(image: NDArray[np.uint8], size: int, fit: FitKind) -> tuple[NDArray[np.uint8], ResizeGeometry]:
    """Resize an image [H, W, 3] uint8 to a square of side `size`, smoothing where it is reduced (bicubic).

    `fit` "crop": the largest square in the image's middle. "pad": all of the image in proportion, on a ground of its
    mean colour. "stretch": all of the image, out of proportion. Another one is a RecipeError, an image of other axes,
    another type or without a pixel a ShapeError. The second result is the way back for masks and boxes.
    """
    check_shape(image, "H W 3", "image")
    if image.dtype != np.uint8 or not image.size:
        raise ShapeError(f"image must be uint8 with at least one pixel, but is {image.dtype} {list(image.shape)}.")
    if fit not in get_args(FitKind):
        kinds = get_args(FitKind)
        raise RecipeError(f"images: fit has no '{fit}', only {', '.join(kinds)}.{did_you_mean(str(fit), kinds)}")
    (height, width), longest = image.shape[:2], max(image.shape[:2])
    source, target = (0, 0, width, height), (0, 0, size, size)
    if fit == "crop":
        source = _centred(min(height, width), min(height, width), width, height)
    elif fit == "pad":
        target = _centred(max(1, round(size * width / longest)), max(1, round(size * height / longest)), size, size)
    left, top, right, bottom = target
    square = np.empty((size, size, 3), np.uint8)
    square[...] = image.mean(axis=(0, 1)).round()  # seen where "pad" leaves a margin
    resized = Image.fromarray(image).resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=source)
    square[top:bottom, left:right] = np.asarray(resized)
    return square, ResizeGeometry(height, width, size, source, target)


def _centred(width: int, height: int, outer_width: int, outer_height: int) -> Rectangle:
    """A rectangle in the middle of a larger one, rounded to the top left."""
    left, top = (outer_width - width) // 2, (outer_height - height) // 2
    return left, top, left + width, top + height

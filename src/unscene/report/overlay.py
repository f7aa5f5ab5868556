"""Masks, boxes and numbers on an image, at its own resolution."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from unscene.errors import ShapeError, check_shape
from unscene.report.slots import Colour, label_map_palette, slot_colour, text_colour

_PIXELS_AT_ONCE = 2**22  # of an image that is tinted
_SMALLEST_WITH_TEXT = 128  # pixels of the shorter side; on less a number would hide the object


def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer] | None = None,
    boxes: NDArray[np.floating] | None = None,
    *,
    numbers: bool = True,
    tint: float = 0.4,
    stroke: int | None = None,
) -> NDArray[np.uint8]:
    """Draw a label map and boxes on an image, in the colours of the slots.

    Args:
        image: [H, W, 3] uint8.
        labels: [H, W], 0 is the background and is unchanged, 1.. are tinted and outlined.
        boxes: [N, 4] `x1 y1 x2 y2`, end exclusive; row `n` belongs to label `n + 1`, zero rows are not drawn.
        numbers: write each box's label beside it, on images of 128 pixels or more.
        tint: share of the slot's colour in its mask, the rest is the image.
        stroke: width of the lines in pixels, by default a 300th of the image's shorter side.

    Returns:
        [H, W, 3] uint8, a new image.
    """
    size = check_shape(image, "H W 3", "image")
    result: NDArray[np.uint8] = image.copy()
    if stroke is None:
        stroke = max(1, round(min(size["H"], size["W"]) / 300))
    if labels is not None:
        check_shape(labels, f"{size['H']} {size['W']}", "labels")
        if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
            raise ShapeError(f"labels must be in 0..255, but are from {labels.min()} to {labels.max()}.")
        _tint(result, labels.astype(np.uint8, copy=False), tint, stroke)
    if boxes is not None:
        check_shape(boxes, "N 4", "boxes")
        _draw_boxes(result, boxes, numbers, stroke)
    return result


def _tint(image: NDArray[np.uint8], labels: NDArray[np.uint8], tint: float, stroke: int) -> None:
    """Tint each mask, and paint the pixels at its border in the full colour; in stripes, so that memory is bounded."""
    colours = np.frombuffer(label_map_palette(), np.uint8).reshape(256, 3)
    part = round(16 * tint)  # in sixteenths, so that a photograph is mixed in whole numbers
    rows, window = max(1, _PIXELS_AT_ONCE // labels.shape[1]), 2 * stroke + 1
    for top in range(0, len(labels), rows):
        first = max(0, top - stroke)  # the rows above and below decide what is a border
        near = labels[first : top + rows + stroke]
        border = ndimage.maximum_filter(near, window) != ndimage.minimum_filter(near, window)
        stripe, pixels = labels[top : top + rows], image[top : top + rows]
        found = stripe > 0
        mixed = pixels[found] * np.uint16(16 - part) + colours[stripe[found]] * np.uint16(part)
        pixels[found] = mixed // 16
        border = border[top - first :][:rows] & found
        pixels[border] = colours[stripe[border]]


def _draw_boxes(image: NDArray[np.uint8], boxes: NDArray[np.floating], numbers: bool, stroke: int) -> None:
    rows = [(n, *(round(float(edge)) for edge in box)) for n, box in enumerate(boxes, start=1) if np.any(box)]
    for n, x1, y1, x2, y2 in rows:
        if stroke > 1:  # a dark rim, so that the box is visible on its own colour
            _draw_rectangle(image, (x1 - 1, y1 - 1, x2 + 1, y2 + 1), (0, 0, 0), stroke + 2)
        _draw_rectangle(image, (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)), slot_colour(n), stroke)
    if numbers and min(image.shape[:2]) >= _SMALLEST_WITH_TEXT:
        for n, x1, y1, _, _ in rows:  # after all boxes, so that no box crosses a number
            _write_number(image, n, (x1, y1))


def _draw_rectangle(image: NDArray[np.uint8], box: tuple[int, int, int, int], colour: Colour, width: int) -> None:
    """Draw the sides of a box, end exclusive, `width` pixels inwards."""
    x1, y1, x2, y2 = box
    for left, top, right, bottom in (
        (x1, y1, x2, min(y1 + width, y2)),
        (x1, max(y2 - width, y1), x2, y2),
        (x1, y1, min(x1 + width, x2), y2),
        (max(x2 - width, x1), y1, x2, y2),
    ):
        image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = colour


def _write_number(image: NDArray[np.uint8], number: int, corner: tuple[int, int]) -> None:
    """Write on a filled ground above the box's top left corner, or inside the box at the image's upper edge."""
    side, text = min(image.shape[:2]), str(number)
    size = min(max(side // 28, 11), 48)
    font = bold_font(size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    pad = max(2, size // 6)
    height = bottom - top + 2 * pad
    tag = Image.new("RGB", (right - left + 2 * pad, height), slot_colour(number))
    ImageDraw.Draw(tag).text((pad - left, pad - top), text, fill=text_colour(slot_colour(number)), font=font)
    x, y = corner[0], corner[1] - height if corner[1] >= height else corner[1]
    part = image[y : y + height, x : x + tag.width]
    part[:] = np.asarray(tag)[: part.shape[0], : part.shape[1]]


@cache
def bold_font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: Pillow before 10.1 brings none that can be scaled."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")), size)

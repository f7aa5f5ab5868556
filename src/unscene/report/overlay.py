"""Masks, boxes and numbers on an image, at its own resolution."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from unscene.errors import ShapeError, check_shape
from unscene.report.slots import label_map_palette, slot_colour, text_colour

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
        result = _tinted(result, labels.astype(np.uint8), tint, stroke)
    if boxes is not None:
        check_shape(boxes, "N 4", "boxes")
        result = _with_boxes(result, boxes, numbers, stroke)
    return result


def _tinted(image: NDArray[np.uint8], labels: NDArray[np.uint8], tint: float, stroke: int) -> NDArray[np.uint8]:
    """Tint each mask, and paint the pixels at its border in the full colour."""
    colours = np.frombuffer(label_map_palette(), np.uint8).reshape(256, 3)
    found = labels > 0
    part = round(16 * tint)  # in sixteenths, so that a photograph is mixed in whole numbers
    for stripe in _stripes(image):
        pixels, inside = image[stripe], found[stripe]
        mixed = pixels[inside] * np.uint16(16 - part) + colours[labels[stripe][inside]] * np.uint16(part)
        pixels[inside] = mixed // 16
    window = 2 * stroke + 1
    near = ndimage.maximum_filter(labels, window), ndimage.minimum_filter(labels, window)
    border = found & (near[0] != near[1])
    image[border] = colours[labels[border]]
    return image


def _with_boxes(image: NDArray[np.uint8], boxes: NDArray[np.floating], numbers: bool, stroke: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    rows = [(n, *(round(float(edge)) for edge in box)) for n, box in enumerate(boxes, start=1) if np.any(box)]
    for n, x1, y1, x2, y2 in rows:
        corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        if stroke > 1:  # a dark rim, so that the box is visible on its own colour
            draw.rectangle((x1 - 1, y1 - 1, corners[2] + 1, corners[3] + 1), outline=(0, 0, 0), width=stroke + 2)
        draw.rectangle(corners, outline=slot_colour(n), width=stroke)
    if numbers and min(picture.size) >= _SMALLEST_WITH_TEXT:
        for n, x1, y1, _, _ in rows:  # after all boxes, so that no box crosses a number
            _write_number(draw, n, (x1, y1), min(picture.size))
    for stripe in _stripes(image):
        image[stripe] = np.asarray(picture.crop((0, stripe.start, picture.width, stripe.stop)))
    return image


def _stripes(image: NDArray[np.uint8]) -> list[slice]:
    """Rows of an image in parts of 4 million pixels, so that temporary arrays stay small."""
    height, width = image.shape[:2]
    step = max(1, 2**22 // max(width, 1))
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]


def _write_number(draw: ImageDraw.ImageDraw, number: int, corner: tuple[int, int], side: int) -> None:
    """Write on a filled ground above the box's top left corner, or inside the box at the image's upper edge."""
    size, ground = min(max(side // 28, 11), 48), slot_colour(number)
    text, font = str(number), bold_font(size)
    left, top, right, bottom = (round(edge) for edge in draw.textbbox((0, 0), text, font=font))
    pad = max(2, size // 6)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x, y = corner[0], corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=ground)
    draw.text((x + pad - left, y + pad - top), text, fill=text_colour(ground), font=font)


@cache
def bold_font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: Pillow before 10.1 brings none that can be scaled."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")), size)

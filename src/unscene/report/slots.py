"""Pictures of slots, in one colour for each: masks, boxes and numbers on an image, and a training's sample figure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor

from unscene.errors import ShapeError, check_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unscene.scene import Decomposition

Colour = tuple[int, int, int]

# Readable without colour vision: Okabe and Ito, Color universal design, 2008 (without black), then five of Paul Tol's
# "muted" scheme.
SLOT_COLOURS: tuple[Colour, ...] = tuple(
    (code >> 16, code >> 8 & 255, code & 255)
    for code in (
        *(0xE69F00, 0x56B4E9, 0x009E73, 0xF0E442, 0x0072B2, 0xD55E00, 0xCC79A7),
        *(0x882255, 0x999933, 0x332288, 0x44AA99, 0xCC6677),
    )
)
_PIXELS_AT_ONCE = 2**22  # of an image that is tinted
_SMALLEST_WITH_TEXT = 128  # pixels of the shorter side; on less a number would hide the object
_BRIGHT = 140  # of 255; above it black text is easier to read than white
_PANEL, _LEFT, _TOP = 1.1, 1.0, 0.35  # inches: side of a panel, room for the names of the rows, room for the title


def slot_colour(label: int) -> Colour:
    """The colour of a label of `Decomposition.labels()`, 1 and above. The colours repeat after twelve labels."""
    return SLOT_COLOURS[(label - 1) % len(SLOT_COLOURS)]


def text_colour(ground: Colour) -> Colour:
    """Black or white, whichever is easier to read on a ground."""
    red, green, blue = ground
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if brightness > _BRIGHT else (255, 255, 255)


def label_map_palette() -> bytes:
    """The 256 colours of a palette image whose pixels are labels: black for 0, then the colours of the slots."""
    return bytes(channel for label in range(256) for channel in (slot_colour(label) if label else (0, 0, 0)))


def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer] | None = None,
    boxes: NDArray[np.floating] | None = None,
    *,
    slots: NDArray[np.integer] | None = None,
    numbers: bool = True,
    tint: float = 0.4,
    stroke: int | None = None,
) -> NDArray[np.uint8]:
    """Return a copy of an image [H, W, 3] uint8 with a label map and boxes on it, in the colours of the slots.

    Labels [H, W] of 1 and more are outlined, and mixed with the image by the share `tint` of their colour. The boxes
    [N, 4], `x1 y1 x2 y2`, belong to the labels `slots` [N], by default 1 to N; zero rows are not drawn. On images of
    128 pixels or more each box has its number, at a corner: beside it, or inside a large box; or none, where
    it would hide an object or another number. `stroke` is the width of the lines, by default a 300th of the shorter
    side.
    """
    size = check_shape(image, "H W 3", "image")
    result: NDArray[np.uint8] = image.copy()
    if stroke is None:
        stroke = max(1, round(min(size["H"], size["W"]) / 300))
    if labels is not None:
        check_shape(labels, f"{size['H']} {size['W']}", "labels")
        if labels.min(initial=0) < 0:
            raise ShapeError(f"labels must be 0 or more, but one is {labels.min()}.")
        _tint(result, labels, tint, stroke)
    if boxes is not None:
        count = check_shape(boxes, "N 4", "boxes")["N"]
        names = range(1, count + 1) if slots is None else slots.tolist()
        rows = [(n, *(round(float(edge)) for edge in box)) for n, box in zip(names, boxes, strict=True) if np.any(box)]
        for n, x1, y1, x2, y2 in rows:
            if stroke > 1:  # a dark rim, so that the box is visible on its own colour
                _draw_rectangle(result, (x1 - 1, y1 - 1, x2 + 1, y2 + 1), (0, 0, 0), stroke + 2)
            _draw_rectangle(result, (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)), slot_colour(n), stroke)
        if numbers and min(size.values()) >= _SMALLEST_WITH_TEXT:
            written: list[tuple[int, int, int, int]] = []
            for n, *box in rows:  # after all boxes, so that no box crosses a number
                _write_number(result, n, box, labels, written)
    return result


def enlarged(maps: NDArray[Any], zoom: int) -> NDArray[Any]:
    """A picture or label map [H, W, ...] of `zoom` times as many rows and columns."""
    return maps.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _tint(image: NDArray[np.uint8], labels: NDArray[np.integer], tint: float, stroke: int) -> None:
    """Tint each mask, and paint the pixels at its border in the full colour; in stripes, so that memory is bounded."""
    colours = np.frombuffer(label_map_palette(), np.uint8).reshape(256, 3)
    part = round(16 * tint)  # in sixteenths, so that a photograph is mixed in whole numbers
    rows, window = max(1, _PIXELS_AT_ONCE // labels.shape[1]), 2 * stroke + 1
    for top in range(0, len(labels), rows):
        first = max(0, top - stroke)  # the rows above and below decide what is a border
        near = _in_the_palette(labels[first : top + rows + stroke])
        border = ndimage.maximum_filter(near, window) != ndimage.minimum_filter(near, window)
        stripe, pixels = near[top - first :][:rows], image[top : top + rows]
        found = stripe > 0
        mixed = pixels[found] * np.uint16(16 - part) + colours[stripe[found]] * np.uint16(part)
        pixels[found] = mixed // 16
        border = border[top - first :][:rows] & found
        pixels[border] = colours[stripe[border]]


def _in_the_palette(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Labels of any size as labels of at most 255 and the same colour."""
    if labels.dtype != np.uint8:
        period = 255 // len(SLOT_COLOURS) * len(SLOT_COLOURS)
        labels = np.where(labels > 0, (labels - 1) % period + 1, 0)
    return labels.astype(np.uint8, copy=False)


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


def _write_number(
    image: NDArray[np.uint8],
    number: int,
    box: Sequence[int],
    labels: NDArray[np.integer] | None,
    written: list[tuple[int, int, int, int]],
) -> None:
    """Write on a filled ground at a corner of the box: above it, inside it or below it.

    The first place counts that lies in the image and hides no pixel of another label and no number `written` before,
    top, left, bottom and right; inside also no more than a quarter of the box. Without such a place nothing is written.
    """
    side, text = min(image.shape[:2]), str(number)
    size = min(max(side // 28, 11), 48)
    font = bold_font(size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    pad = max(2, size // 6)
    height = bottom - top + 2 * pad
    tag = Image.new("RGB", (right - left + 2 * pad, height), slot_colour(number))
    ImageDraw.Draw(tag).text((pad - left, pad - top), text, fill=text_colour(slot_colour(number)), font=font)
    width = tag.width
    x1, y1 = max(box[0], 0), max(box[1], 0)
    x2, y2 = min(box[2], image.shape[1]), min(box[3], image.shape[0])
    if x2 < x1 or y2 < y1:  # outside of the image
        return
    rows = [y1 - height, y1, y2] if 4 * width * height <= (x2 - x1) * (y2 - y1) else [y1 - height, y2]
    for y, x in product(rows, (x1, x2 - width)):
        place, area = (y, x, y + height, x + width), (slice(y, y + height), slice(x, x + width))
        seen = 0 <= y <= image.shape[0] - height and 0 <= x <= image.shape[1] - width
        free = not any(_overlap(place, other) for other in written)
        if seen and free and (labels is None or np.isin(labels[area], (0, number)).all()):
            image[area] = np.asarray(tag)
            written.append(place)
            return


def _overlap(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether two areas, top left bottom right, share a pixel."""
    return all(max(first[i], second[i]) < min(first[i + 2], second[i + 2]) for i in (0, 1))


@cache
def bold_font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: Pillow before 10.1 brings none that can be scaled."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")), size)


def sample_figure(images: Tensor, decomposition: Decomposition, title: str = "") -> Figure:
    """One column for each image [B, 3, H, W] in 0..1. Rows: input with the valid boxes, reconstruction, then for each
    slot its mask and its masked component.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: the colours are needed without it
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    masks = decomposition.masks().float()
    masked = masks * decomposition.components.float()
    rows, names = [images, decomposition.reconstruction()], ["input", "reconstruction"]
    for slot in range(decomposition.num_slots):
        rows += [masks[:, slot].expand(-1, 3, -1, -1), masked[:, slot]]
        names += [f"mask {slot}", f"slot {slot}"]
    grid = torch.stack([row.float().cpu() for row in rows]).clamp(0, 1)  # [R, B, 3, H, W]
    height, width = grid.shape[-2:]
    picture = grid.permute(0, 3, 1, 4, 2).reshape(len(rows) * height, len(images) * width, 3)
    across, down = _LEFT + _PANEL * len(images), _TOP + _PANEL * len(rows) * height / width
    figure = Figure(figsize=(across, down), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((_LEFT / across, 0, 1 - _LEFT / across, 1 - _TOP / down), frame_on=False)
    axes.imshow(picture.numpy(), interpolation="nearest")
    axes.set_yticks([(row + 0.5) * height for row in range(len(rows))], names, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    if decomposition.boxes is not None and decomposition.box_valid is not None:
        for image, slot in decomposition.box_valid.nonzero().tolist():
            x1, y1, x2, y2 = decomposition.boxes[image, slot].tolist()
            colour = [channel / 255 for channel in slot_colour(slot + 1)]
            corner = (x1 + image * width - 0.5, y1 - 0.5)
            axes.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.2))
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / down, va="top")
    return figure

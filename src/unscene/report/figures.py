"""One scene at a glance: image with boxes, reconstruction, segmentation, and every slot's mask and component."""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unscene.errors import ShapeError, check_shape
from unscene.report.overlay import overlay
from unscene.report.slots import slot_colour
from unscene.scene import Decomposition, Scene

INK = "#808080"  # read on white and on black alike
_DPI = 100
_SLOT = 120  # pixels of a slot's panel
_GAP = 8
_TITLE = 30
_MOST_COLUMNS = 7
TINT = 1.0  # mixed with the image, one slot would show several colours
_EDGE = 3  # pixels around all, for the frames
_GROUND = 0.92  # behind a component, where its mask is 0


@dataclass(frozen=True)
class Panel:
    """A small image of a figure: pixels [H, W, 3], or [H, W] in 0..1; what stands above it; the colour of its frame."""

    pixels: NDArray[np.generic]
    title: str = ""
    frame: tuple[int, int, int] | None = None


def scene_figure(scene: Scene, decomposition: Decomposition, index: int = 0) -> Figure:
    """Draw one scene of a batch.

    First row: the image with the valid boxes, the reconstruction, the segmentation, and the true one where it is known,
    each object in the colour of the slot that took most of it. Below, for every slot: the score of its box, its mask
    (white is 1), and its component where the mask is.

    Args:
        scene: a batch of images, with the truth where it is known.
        decomposition: of the same images.
        index: which one.

    Returns:
        A Matplotlib figure with a transparent ground; `png_bytes` makes a file of it.

    Raises:
        ShapeError: the two are not of the same images, or there is no image `index`.
    """
    size = check_shape(scene.images, "B 3 H W", "images")
    check_shape(decomposition.log_masks, f"{size['B']} K 1 {size['H']} {size['W']}", "log_masks")
    if not 0 <= index < size["B"]:
        raise ShapeError(f"index must be one of {size['B']} images (0 to {size['B'] - 1}), but is {index}.")
    top = _top_panels(scene, decomposition, index)
    masks, components = _slot_panels(decomposition, index)
    blocks = ceil(len(masks) / _MOST_COLUMNS)
    columns = ceil(len(masks) / blocks)
    rows = [top]
    for block in range(blocks):
        chosen = slice(block * columns, (block + 1) * columns)
        rows += [masks[chosen], components[chosen]]
    return _laid_out(rows, max(columns, len(top)), size["H"] / size["W"])


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, transparent=True, metadata={"Software": "unscene"})
    return file.getvalue()


def _top_panels(scene: Scene, decomposition: Decomposition, index: int) -> list[Panel]:
    image = image_bytes(scene.images[index])
    zoom = max(1, round(192 / max(image.shape[:2])))  # drawn on enlarged pixels, lines come out thin
    large = enlarged(image, zoom)
    found = enlarged(decomposition.labels()[index].numpy(), zoom)
    if decomposition.background is None:
        found = found + 1  # slot 0 is an object as any other
    boxes = valid_boxes(decomposition, index)
    title = "image" if boxes is None else "image, boxes"
    panels = [
        Panel(large if boxes is None else overlay(large, None, boxes * zoom, [""] * len(boxes), stroke=2), title),
        Panel(image_bytes(decomposition.reconstruction()[index]), "reconstruction"),
        Panel(overlay(large, found, tint=TINT), "segmentation"),
    ]
    if scene.labels is not None:
        truth = enlarged(scene.labels[index].numpy(), zoom)
        truth = matched_labels(truth, found, int(truth.max()) + 1)[truth]
        panels.append(Panel(overlay(large, truth, tint=TINT), "truth"))
    return panels


def _slot_panels(decomposition: Decomposition, index: int) -> tuple[list[Panel], list[Panel]]:
    """The masks and the masked components, the background's slot first."""
    foreground = decomposition.foreground
    background = [slot for slot in range(decomposition.num_slots) if slot not in foreground]
    masks, components = [], []
    for slot in background + foreground:
        mask = decomposition.log_masks[index, slot, 0].float().exp().numpy()
        component = decomposition.components[index, slot].float().clamp(0, 1).permute(1, 2, 0).numpy()
        label = foreground.index(slot) + 1 if slot in foreground else 0
        frame = slot_colour(label) if label else None
        masks.append(Panel(mask, _slot_title(decomposition, index, label), frame))
        components.append(Panel(mask[..., None] * component + (1 - mask[..., None]) * _GROUND, "", frame))
    return masks, components


def _slot_title(decomposition: Decomposition, index: int, label: int) -> str:
    if not label:
        return "background"
    scores, valid = decomposition.box_scores, decomposition.box_valid
    if scores is None or valid is None:
        return f"slot {label}"
    return f"{label}: {float(scores[index, label - 1]):.2f}" if bool(valid[index, label - 1]) else f"{label}: no box"


def valid_boxes(decomposition: Decomposition, index: int) -> NDArray[np.float32] | None:
    """[N, 4] the boxes, zero rows for those that are not valid; None for a model without boxes."""
    boxes, valid = decomposition.boxes, decomposition.box_valid
    if boxes is None or valid is None:
        return None
    shown: NDArray[np.float32] = (boxes[index].float() * valid[index].unsqueeze(-1)).numpy()
    return shown


def matched_labels(
    labels: NDArray[np.integer], reference: NDArray[np.integer], number: int, background: bool = True
) -> NDArray[np.int64]:
    """For each label of a map one of another map, one to one, so that they share the most pixels in all.

    Args:
        labels: [H, W] in 0..number-1.
        reference: [H, W] of the same image.
        number: of labels that there may be.
        background: whether label 0 is the background of both, and so matched with itself; else it is as any other.

    Returns:
        [number]; `matched_labels(...)[labels]` is the first map in the colours of the other. A label for which none is
        left that it shares a pixel with gets one that `reference` does not have.
    """
    columns = int(reference.max()) + 1
    pairs = labels.astype(np.int64) * columns + reference
    shared = np.bincount(pairs.ravel(), minlength=number * columns).reshape(number, columns).astype(np.float64)
    shared[shared == 0] = -1  # less than a label of its own
    first = int(background)
    _, matched = linear_sum_assignment(np.pad(shared, ((0, 0), (0, number)))[first:, first:], maximize=True)
    return np.concatenate([np.zeros(first, np.int64), matched + first])


def image_bytes(image: Tensor) -> NDArray[np.uint8]:
    """[3, H, W] in 0..1 to [H, W, 3] uint8."""
    return (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def enlarged(image: NDArray[Any], zoom: int) -> NDArray[Any]:
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _laid_out(rows: list[list[Panel]], columns: int, aspect: float) -> Figure:
    """Put rows of panels on a figure, pixel by pixel; the first row fills the whole width."""
    inside = columns * _SLOT + (columns - 1) * _GAP
    widths = [(inside - (len(rows[0]) - 1) * _GAP) / len(rows[0])] + [float(_SLOT)] * (len(rows) - 1)
    titles = [_TITLE if row[0].title else 0 for row in rows]
    heights = [panel * aspect for panel in widths]
    width = inside + 2 * _EDGE
    height = sum(heights) + sum(titles) + _GAP * (len(rows) - 1) + 2 * _EDGE
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    below = height - _EDGE
    for row, panel_width, panel_height, title in zip(rows, widths, heights, titles, strict=True):
        below -= title + panel_height
        for column, panel in enumerate(row):
            left = _EDGE + column * (panel_width + _GAP)
            rectangle = (left / width, below / height, panel_width / width, panel_height / height)
            _draw(figure.add_axes(rectangle), panel)
        below -= _GAP
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    axes.imshow(panel.pixels, cmap="gray", vmin=0, vmax=255 if panel.pixels.dtype == np.uint8 else 1, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(panel.title, fontsize=15, color=INK, pad=4)
    for spine in axes.spines.values():
        spine.set_color(INK if panel.frame is None else _rgb(panel.frame))
        spine.set_linewidth(1 if panel.frame is None else 4)


def _rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255

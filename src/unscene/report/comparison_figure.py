"""Scenes side by side, as papers show them: a column a scene; below image and truth two rows for every model."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from unscene.errors import check_shape
from unscene.metrics import new_metric
from unscene.report.figures import INK, enlarged, image_bytes, matched_labels, valid_boxes
from unscene.report.metric_descriptions import shown
from unscene.report.overlay import bold_font, overlay
from unscene.scene import Decomposition, Scene

_PANEL = 192  # pixels of its longer side, at most
_GAP, _BETWEEN = 4, 14  # between panels, and above a title
_TITLE, _TEXT = 16, 12  # pixels of the letters
_BACKGROUND = 40  # grey where no object is; what is not found is not seen then


@dataclass(frozen=True)
class Row:
    """A row of the figure.

    Attributes:
        panels: a scene each, [H, W, 3].
        title: above them; empty for none.
        texts: one below each panel; empty for none.
    """

    panels: list[NDArray[np.uint8]]
    title: str = ""
    texts: tuple[str, ...] = ()


def scenes_png(scene: Scene, found: Mapping[str, Decomposition]) -> bytes:
    """Draw the figure.

    Args:
        scene: a batch of images, with the truth where it is known.
        found: what each model makes of them, by its name.

    Returns:
        A PNG file with a transparent ground. Rows: the images; the true segmentation; then for each model its
        segmentation with the valid boxes, in the colours of the true objects that its slots were matched with and
        with each scene's foreground ARI, and its reconstruction. Without truth, slots have their own colours.

    Raises:
        ShapeError: the decompositions are not of the same images.
    """
    return _png(comparison_rows(scene, found))


def comparison_rows(scene: Scene, found: Mapping[str, Decomposition]) -> list[Row]:
    """The rows of the figure; arguments and errors as in `scenes_png`."""
    size = check_shape(scene.images, "B 3 H W", "images")
    every = range(size["B"])
    rows = [Row([_large(image_bytes(image)) for image in scene.images], "images")]
    truth = None if scene.labels is None else [labels.numpy() for labels in scene.labels]
    if truth is not None:
        rows.append(Row([_segments(labels) for labels in truth], "true segmentation"))
    for name, decomposition in found.items():
        check_shape(decomposition.log_masks, f"{size['B']} K 1 {size['H']} {size['W']}", "log_masks")
        segments = [_segmentation(decomposition, index, None if truth is None else truth[index]) for index in every]
        rows.append(Row(segments, f"{name}: segmentation, reconstruction", _scores(scene, decomposition)))
        rows.append(Row([_large(image_bytes(image)) for image in decomposition.reconstruction()]))
    return rows


def _segmentation(decomposition: Decomposition, index: int, truth: NDArray[np.integer] | None) -> NDArray[np.uint8]:
    """One scene's slots and boxes, in the colours of the true objects."""
    labels, stated = decomposition.labels()[index].numpy(), decomposition.background is not None
    if truth is None:
        colours = np.arange(decomposition.num_slots) + (not stated)  # without a background, slot 0 is an object too
    else:
        colours = matched_labels(labels, truth, decomposition.num_slots, stated)
    boxes = valid_boxes(decomposition, index)
    if boxes is None:
        return _segments(colours[labels])
    owners = colours[int(stated) :]  # the boxes are of the foreground's slots
    rows = np.zeros((int(owners.max(initial=0)), 4), np.float32)
    rows[owners[owners > 0] - 1] = boxes[owners > 0]
    return _segments(colours[labels], rows)


def _segments(labels: NDArray[np.integer], boxes: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """A label map and boxes on a plain ground."""
    large = enlarged(labels, _zoom(labels))
    ground = np.full((*large.shape, 3), _BACKGROUND, np.uint8)
    if boxes is None:
        return _reduced(overlay(ground, large, tint=1))
    return _reduced(overlay(ground, large, boxes * _zoom(labels), [""] * len(boxes), tint=1, stroke=2))


def _large(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _reduced(enlarged(image, _zoom(image)))


def _zoom(image: NDArray[np.generic]) -> int:
    """Drawn on enlarged pixels, lines come out thin, and each pixel is seen."""
    return max(1, _PANEL // int(max(image.shape[:2])))


def _reduced(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if max(panel.shape[:2]) <= _PANEL:
        return panel
    image = Image.fromarray(panel)
    image.thumbnail((_PANEL, _PANEL))
    return np.asarray(image)


def _scores(scene: Scene, decomposition: Decomposition) -> tuple[str, ...]:
    metric = new_metric("ari_fg")
    metric.update(scene, decomposition)
    scores = metric.per_image()
    if all(score is None for score in scores):
        return ()
    return tuple("" if score is None else f"ARI {shown('ari_fg', score)}" for score in scores)


def _png(rows: list[Row]) -> bytes:
    """The rows below one another, as a PNG file."""
    height, width = rows[0].panels[0].shape[:2]
    tops, bottom = _tops(rows, height)
    across = len(rows[0].panels) * (width + _GAP) - _GAP
    picture = Image.new("RGBA", (across, bottom), (*ImageColor.getrgb(INK), 0))
    draw = ImageDraw.Draw(picture)
    for row, top in zip(rows, tops, strict=True):
        draw.text((0, top - _TITLE - 6), row.title, fill=INK, font=bold_font(_TITLE))
        for column, panel in enumerate(row.panels):
            picture.paste(Image.fromarray(panel), (column * (width + _GAP), top))
        for column, text in enumerate(row.texts):
            draw.text((column * (width + _GAP), top + height + 2), text, fill=INK, font=bold_font(_TEXT))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _tops(rows: list[Row], height: int) -> tuple[list[int], int]:
    """Where each row's panels begin, and where the last one ends."""
    tops, below = [], 0
    for row in rows:
        below += (_TITLE + 8 + (_BETWEEN if below else 0)) if row.title else 0
        tops.append(below)
        below += height + (_TEXT + 6 if row.texts else _GAP)
    return tops, below

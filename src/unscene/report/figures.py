"""Figures of scenes: one scene with every slot, or several scenes as several models decompose them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unscene.errors import check_shape
from unscene.metrics import new_metric
from unscene.report.slots import Colour, bold_font, overlay, slot_colour
from unscene.report.table import shown
from unscene.scene import Decomposition, Prediction, Scene, Segmentation

INK = "#808080"  # readable on white and on black
_PANEL, _LARGE, _SLOT = 192, 384, 128  # pixels of the longer side, at most
_GAP, _FRAME = 8, 3
_TITLE, _TEXT = 16, 12  # pixels of the letters
_MOST_COLUMNS = 7
_BACKGROUND = 40  # grey of pixels without an object in a segmentation
_GROUND = 0.92  # behind a component, where its mask is 0


@dataclass(frozen=True)
class Row:
    panels: list[NDArray[np.uint8]]  # [H, W, 3] of one size
    titles: tuple[str, ...] = ()  # one above each panel, or one for all; empty for none
    texts: tuple[str, ...] = ()  # one below each panel; empty for none
    frames: tuple[Colour | None, ...] = ()  # the colours of the frames; None for no frame


def scene_rows(scene: Scene, prediction: Prediction, index: int = 0) -> list[Row]:
    """The rows of the figure of one scene of a batch.

    First row: the image with the valid boxes, the reconstruction, the segmentation, and the true one where it is known,
    each object in the colour of the slot that shares most of it. Below, for every slot: the score of its box, its mask
    (white is 1), and its component where the mask is. Of label maps alone there are images and segmentations. A
    ShapeError: they are not of the same images.
    """
    image, decomposition = image_bytes(scene.images[index]), None
    found = prediction.labels()[index].numpy() + (prediction.background is None)  # 0 is the background
    if isinstance(prediction, Segmentation):
        panels, side = {"image": _panel(image, side=_LARGE)}, _LARGE
    else:
        decomposition, side = prediction, _PANEL
        _check(scene, decomposition)
        boxes = valid_boxes(decomposition, index)
        panels = {
            "image" if boxes is None else "image, boxes": _panel(image, boxes=boxes),
            "reconstruction": _panel(image_bytes(decomposition.reconstruction()[index])),
        }
    panels["segmentation"] = _panel(image, found, side=side)
    if scene.labels is not None:
        truth = scene.labels[index].clamp_min(0).numpy()
        panels["truth"] = _panel(image, matched_labels(truth, found, int(truth.max()) + 1)[truth], side=side)
    slots = [] if decomposition is None else _slot_rows(decomposition, index)
    return [Row(list(panels.values()), titles=tuple(panels)), *slots]


def comparison_rows(scene: Scene, found: Mapping[str, Decomposition]) -> list[Row]:
    """The rows of the figure of all scenes of a batch, a column for each, as several models decompose them.

    Rows: the images; the true segmentation; then for each model its segmentation with the valid boxes, in the colours
    of the true objects that its slots are matched with and with each scene's foreground ARI, and its reconstruction.
    Without truth, slots have their own colours. A ShapeError: the decompositions are not of the same images.
    """
    rows = [Row([_panel(image_bytes(image)) for image in scene.images], ("images",))]
    truth = None if scene.labels is None else [labels.numpy() for labels in scene.labels.clamp_min(0)]
    if truth is not None:
        rows.append(Row([_segments(labels) for labels in truth], ("true segmentation",)))
    for name, decomposition in found.items():
        _check(scene, decomposition)
        metric = new_metric("ari_fg")
        metric.update(scene, decomposition)
        texts = ("" if score is None else f"ARI {shown('ari_fg', score)}" for score in metric.per_image())
        segments = [_segmentation(decomposition, i, truth[i] if truth else None) for i in range(len(scene))]
        title = f"{name}: segmentation, reconstruction"
        rows.append(Row(segments, (title,), texts=tuple(texts) if truth else ()))
        rows.append(Row([_panel(image_bytes(image)) for image in decomposition.reconstruction()]))
    return rows


def decomposition_picture(decomposition: Decomposition, images: Tensor | None, most: int) -> Image.Image:
    """The first `most` images of `Decomposition.plot`."""
    part = decomposition.map(lambda tensor: tensor[:most].detach().cpu())
    rows = comparison_rows(Scene(part.reconstruction() if images is None else images[:most].cpu()), {"slots": part})
    return Image.open(io.BytesIO(rows_png(rows[images is None :])))


def rows_png(rows: Sequence[Row]) -> bytes:
    """Rows below one another, as a PNG file with a transparent ground."""
    tops, bottom = [], 0
    for row in rows:
        tops.append(bottom + bool(row.titles) * (_TITLE + _GAP) + _FRAME)
        bottom = tops[-1] + row.panels[0].shape[0] + (_TEXT + 6 if row.texts else 0) + _GAP
    across = max(len(row.panels) * (row.panels[0].shape[1] + _GAP) for row in rows) - _GAP + 2 * _FRAME
    picture = Image.new("RGBA", (across, bottom), (*ImageColor.getrgb(INK), 0))
    draw = ImageDraw.Draw(picture)
    for row, top in zip(rows, tops, strict=True):
        height, width = row.panels[0].shape[:2]
        columns = zip_longest(row.panels, row.titles, row.texts, row.frames)
        for left, (panel, title, text, frame) in zip(count(_FRAME, width + _GAP), columns, strict=False):
            draw.text((left, top - _TITLE - 6), title or "", fill=INK, font=bold_font(_TITLE))
            picture.paste(Image.fromarray(panel), (left, top))
            draw.text((left, top + height + 2), text or "", fill=INK, font=bold_font(_TEXT))
            if frame:
                corners = (left - _FRAME, top - _FRAME, left + width + _FRAME - 1, top + height + _FRAME - 1)
                draw.rectangle(corners, outline=frame, width=_FRAME)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def matched_labels(
    labels: NDArray[np.integer], reference: NDArray[np.integer], number: int, background: bool = True
) -> NDArray[np.int64]:
    """[number] for each label 0..number-1 of a map [H, W] the label of a reference [H, W], one to one.

    The matching shares the most pixels in total. With `background`, label 0 is matched with itself. A label that shares
    no pixel with an unmatched label gets one that `reference` does not have.
    """
    columns = int(reference.max()) + 1
    pairs = labels.astype(np.int64) * columns + reference
    shared = np.bincount(pairs.ravel(), minlength=number * columns).reshape(number, columns).astype(np.float64)
    shared[shared == 0] = -1  # less than a new label
    first = int(background)
    _, matched = linear_sum_assignment(np.pad(shared, ((0, 0), (0, number)))[first:, first:], maximize=True)
    return np.concatenate([np.zeros(first, np.int64), matched + first])


def valid_boxes(decomposition: Decomposition, index: int) -> NDArray[np.float32] | None:
    """[N, 4] the boxes, zero rows for those that are not valid; None for a model without boxes."""
    boxes, valid = decomposition.boxes, decomposition.box_valid
    if boxes is None or valid is None:
        return None
    return (boxes[index].float() * valid[index].unsqueeze(-1)).numpy()


def image_bytes(image: Tensor) -> NDArray[np.uint8]:
    """[3, H, W] in 0..1 to [H, W, 3] uint8."""
    return (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _check(scene: Scene, decomposition: Decomposition) -> None:
    images, _, height, width = scene.images.shape
    check_shape(decomposition.log_masks, f"{images} K 1 {height} {width}", "log_masks")


def _slot_rows(decomposition: Decomposition, index: int) -> list[Row]:
    """Masks and masked components, the background's slot first, in blocks of at most seven slots."""
    foreground = decomposition.foreground
    background = [slot for slot in range(decomposition.num_slots) if slot not in foreground]
    slots = background + foreground
    rows = []
    columns = ceil(len(slots) / ceil(len(slots) / _MOST_COLUMNS))
    for first in range(0, len(slots), columns):
        block = slots[first : first + columns]
        masks = decomposition.log_masks[index, block].float().exp()  # [N, 1, H, W]
        components = masks * decomposition.components[index, block].float().clamp(0, 1) + (1 - masks) * _GROUND
        labels = [foreground.index(slot) + 1 if slot in foreground else 0 for slot in block]
        titles = tuple(_slot_title(decomposition, index, label) for label in labels)
        frames = tuple(slot_colour(label) if label else None for label in labels)
        rows += [
            Row([_panel(image_bytes(mask.expand(3, -1, -1)), side=_SLOT) for mask in masks], titles, frames=frames),
            Row([_panel(image_bytes(component), side=_SLOT) for component in components], frames=frames),
        ]
    return rows


def _slot_title(decomposition: Decomposition, index: int, label: int) -> str:
    if not label:
        return "background"
    scores, valid = decomposition.box_scores, decomposition.box_valid
    if scores is None or valid is None:
        return f"slot {label}"
    return f"{label}: {float(scores[index, label - 1]):.2f}" if bool(valid[index, label - 1]) else f"{label}: no box"


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
    return _panel(np.full((*labels.shape, 3), _BACKGROUND, np.uint8), labels, boxes)


def _panel(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer] | None = None,
    boxes: NDArray[np.float32] | None = None,
    side: int = _PANEL,
) -> NDArray[np.uint8]:
    """An image with labels and boxes: enlarged by a whole number, so that lines are thin, or reduced to `side`."""
    zoom = max(1, side // max(image.shape[:2]))
    large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    large_labels = None if labels is None else labels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    large_boxes = None if boxes is None else boxes * zoom
    panel = overlay(large, large_labels, large_boxes, numbers=False, tint=1, stroke=2)
    if max(panel.shape[:2]) > side:
        reduced = Image.fromarray(panel)
        reduced.thumbnail((side, side))
        panel = np.asarray(reduced)
    return panel

"""Objects over the frames of a sequence: those of each new frame are linked to the tracks so far.

A track keeps the shape that its object had when most of it was visible, and moves by its velocity from frame to frame.
Pairs of a track and an object have the cost

    c = w_iou (1 - IoU) + w_latent (1 - cosine) + w_location d + w_colour e,    the weights w divided by their sum,

of the moved shape and the object's mask, of the latents, of the distance d of the centres, and of the difference e of
the median colours. The unit of d is three times the square root of the shape's area; pairs further apart are not
linked. The unit of e, at most 1, is 60 grey levels in the channel that differs most. The Hungarian method (Kuhn, 1955)
finds the pairs of least cost.

Then the tracks, the oldest first, move their shapes to where they fit best and take the pixels in them that have the
track's colour rather than that of the object, or the background, to which the model gave them. So an object that the
model finds in parts, or together with another, gets its pixels, and a track whose object the model does not find is
carried on where it is visible, unless a new object replaces it. Memory does not grow with the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from scipy.optimize import linear_sum_assignment

from unscene.errors import DataError, RecipeError, check_options
from unscene.inference.decompose import OPTIONS, decompose_image, tile_side
from unscene.inference.found_objects import FoundObjects, check_limits
from unscene.runs.loading import LoadedModel, load
from unscene.scene import boxes_of_labels
from unscene.settings import settings_dataclass

_COLOUR_UNIT = 60.0  # grey levels, see above
_LARGEST_ERROR = 3 * 40.0**2  # squared distance of a pixel from the colour of the track that takes it
_SAME_COLOUR = 3 * 10.0**2  # objects of one colour: a pixel goes to the older track
_UNOCCLUDED = 0.9  # share of a shape that is visible if nothing hides the object
_BACKGROUND_RATE = 0.1  # of the running mean
_SHIFTS = np.mgrid[-3:4, -3:4].reshape(2, -1).T  # [49, 2]
_SAMPLED = 2000  # pixels of a shape that are compared for each shift


@settings_dataclass
class LinkSettings:
    """How objects are linked. The defaults were chosen by measuring on moving sprites, see docs/guide/tracks.md.

    Attributes:
        iou_weight: of the masks' overlap in the cost.
        latent_weight: of the latents' cosine; models without latents do without it.
        location_weight: of the distance from the expected location.
        colour_weight: of the difference in colour.
        max_cost: pairs of a higher cost are not linked.
        max_gap: frames that an object may be missing and still keep its number, and that it is carried on.
        min_visible: least share of a shape whose pixels the track takes; above 1 no track takes any.
    """

    iou_weight: NonNegativeFloat = 1.0
    latent_weight: NonNegativeFloat = 1.0
    location_weight: NonNegativeFloat = 1.0
    colour_weight: NonNegativeFloat = 2.0
    max_cost: Annotated[float, Field(ge=0, le=1)] = 0.6
    max_gap: NonNegativeInt = 10
    min_visible: NonNegativeFloat = 0.1

    def __post_init__(self) -> None:
        if self.iou_weight + self.location_weight == 0:  # not every model has latents
            raise RecipeError("iou_weight or location_weight must be above 0.")


@dataclass(eq=False)
class _Track:
    """An object when it was last found; only `centre` moves on while it is missing."""

    centre: NDArray[np.float64]  # [2] y and x in pixels
    shape: NDArray[np.float64]  # [P, 2] pixels, from the centre
    colour: NDArray[np.float64]  # [3] median in 0..255
    row: Mapping[str, Any]  # of the FoundObjects
    found: int  # frame in which it was last found
    found_at: NDArray[np.float64]  # its centre then
    unoccluded: int  # frame in which nothing hid it
    number: int = 0
    newest: int = 0  # the highest number when it was last found
    label: int = 0  # in the map of this frame; maps of numbers would need tables that grow with the sequence
    velocity: NDArray[np.float64] | None = None  # [2] pixels a frame; None after one sight

    def pixels(self, shifts: NDArray[np.int64], step: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[S, P] rows and columns of the shape, or of each `step`th pixel, moved by shifts [S, 2]."""
        pixels = np.floor(self.centre + self.shape[::step] + 0.5).astype(np.int64) + shifts[:, None]
        return pixels[..., 0], pixels[..., 1]

    def is_occluded(self, area: int, frame: int, max_gap: int) -> bool:
        """Whether `area` pixels are a part only; after `max_gap` frames they count as all there is."""
        return area < _UNOCCLUDED * len(self.shape) and frame - self.unoccluded <= max_gap


class Linker:
    """Numbers the objects of one frame after another, from 1; a number belongs to one object over all frames."""

    def __init__(self, settings: LinkSettings | None = None) -> None:
        self.settings = settings or LinkSettings()
        self.frames = self.tracks = 0  # so far; the frames since the last `restart`
        self._recent: list[_Track] = []
        self._background = np.empty((0, 0, 3), np.float32)  # running mean of the pixels that no object had

    def link(self, found: FoundObjects, pixels: NDArray[np.uint8]) -> FoundObjects:
        """Return the next frame's objects with the numbers of their tracks as labels and `slots`.

        Tracks that are carried on come last. They have the values that the model stated when it last found them; their
        scores are multiplied by the visible share.

        Args:
            found: the objects.
            pixels: [H, W, 3], the frame.

        Raises:
            DataError: the frame has another size than those before it.
        """
        self.frames += 1
        if self.frames > 1 and pixels.shape != self._background.shape:
            (height, width), (first_height, first_width) = pixels.shape[:2], self._background.shape[:2]
            raise DataError(
                f"frame {self.frames} is {width} x {height} pixels, but the frames before it are {first_width} x "
                f"{first_height}. A sequence has frames of one size: bring them to it, or leave out the tracks."
            )
        self._recent = [track for track in self._recent if self.frames - track.found <= self.settings.max_gap + 1]
        for track in self._recent:
            if track.velocity is not None:
                track.centre = track.centre + track.velocity
        objects = self._objects(found, pixels)
        continued = self._number(objects, found.labels)
        names = np.zeros(int(found.labels.max(initial=0)) + 1, np.int32)
        names[found.slots] = [item.label for item in objects]
        labels, carried = self._share(names[found.labels], pixels, objects, continued)
        return self._update(found, labels, objects, continued, carried)

    def restart(self) -> None:
        """Forget all objects: the next frame is the first of another sequence, whose numbers follow."""
        self.frames, self._recent = 0, []

    def _objects(self, found: FoundObjects, pixels: NDArray[np.uint8]) -> list[_Track]:
        objects = []
        for row, (label, (x1, y1, x2, y2)) in enumerate(zip(found.slots, found.boxes.astype(int), strict=True)):
            mask = found.labels[y1:y2, x1:x2] == label
            points = np.argwhere(mask) + np.array([y1, x1])
            centre, colour = points.mean(axis=0), np.median(pixels[y1:y2, x1:x2][mask], axis=0)
            values = {name: array[row] for name, array in found.columns().items()}
            objects.append(_Track(centre, points - centre, colour, values, self.frames, centre, self.frames))
        return objects

    def _number(self, objects: Sequence[_Track], labels: NDArray[np.integer]) -> dict[int, _Track]:
        """Number and label the objects and all tracks; return the tracks that they continue, by number."""
        cost = np.array([self._costs(track, objects, labels) for track in self._recent])
        cost = cost.reshape(len(self._recent), len(objects))
        allowed = cost <= self.settings.max_cost
        continued = {}
        for row, column in zip(*linear_sum_assignment(np.where(allowed, cost, 1e3)), strict=True):
            if allowed[row, column]:
                track = self._recent[row]
                objects[column].number, continued[track.number] = track.number, track
        for label, item in enumerate(objects, start=1):
            item.label = label
            if not item.number:
                self.tracks += 1
                item.number = self.tracks
            elif item.number in continued:
                continued[item.number].label = label
        for item in objects:
            item.newest = self.tracks
        missing = [track for track in self._recent if track.number not in continued]
        for label, track in enumerate(missing, start=len(objects) + 1):
            track.label = label
        return continued

    def _costs(self, track: _Track, objects: Sequence[_Track], labels: NDArray[np.integer]) -> list[float]:
        """The cost of each object for a track."""
        settings, costs = self.settings, []
        rows, columns = track.pixels(np.zeros((1, 2), np.int64))
        inside = _inside(rows, columns, labels)
        shared = np.bincount(labels[rows[inside], columns[inside]], minlength=int(labels.max(initial=0)) + 1)
        for item in objects:
            overlap = int(shared[item.row["slots"]])
            distance = float(np.linalg.norm(item.centre - track.centre)) / (3 * len(track.shape) ** 0.5)
            terms = [
                (settings.iou_weight, 1 - overlap / (len(track.shape) + len(item.shape) - overlap)),
                (settings.location_weight, distance),
                (settings.colour_weight, min(1.0, float(np.abs(item.colour - track.colour).max()) / _COLOUR_UNIT)),
            ]
            if "latents" in track.row and "latents" in item.row:
                latents = track.row["latents"], item.row["latents"]
                length = float(np.linalg.norm(latents[0]) * np.linalg.norm(latents[1]))
                cosine = float(latents[0] @ latents[1]) / length if length else 0.0
                terms.append((settings.latent_weight, min(1.0, 1 - cosine)))
            cost = float(np.average([term for _, term in terms], weights=[weight for weight, _ in terms]))
            costs.append(cost if distance <= 1 else math.inf)
        return costs

    def _share(
        self,
        labels: NDArray[np.int32],
        pixels: NDArray[np.uint8],
        objects: Sequence[_Track],
        continued: Mapping[int, _Track],
    ) -> tuple[NDArray[np.int32], list[_Track]]:
        """Let each track take its pixels of a map of labels, in place; also return the tracks that are carried on."""
        frame, background = pixels.astype(np.float32), labels == 0
        colours = np.zeros((len(objects) + 1, 3), np.float32)  # of the owners
        for item in objects:
            colours[item.label] = continued.get(item.number, item).colour
        expected = colours[labels]
        if self.frames == 1:
            unknown = np.median(frame[background], axis=0) if background.any() else 0
            self._background = np.where(background[..., None], frame, np.float32(unknown))
        expected[background] = self._background[background]
        error = np.square(frame - expected).sum(axis=2) + _SAME_COLOUR * ~background
        carried = []
        for track in self._recent:  # the oldest first
            own = labels == track.label
            error[own] -= _SAME_COLOUR
            missing = 0 if track.number in continued else self.frames - track.found
            if track.velocity is None or missing > self.settings.max_gap:
                continue

            def takes(
                rows: NDArray[np.int64], columns: NDArray[np.int64], own: NDArray[np.bool_] = own, track: _Track = track
            ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
                """Whether pixels are the track's, and their squared distances from its colour."""
                inside = _inside(rows, columns, own)
                rows, columns = rows.clip(0, len(own) - 1), columns.clip(0, own.shape[1] - 1)
                distance = np.square(frame[rows, columns] - track.colour).sum(axis=-1)
                nearer = distance < np.minimum(error[rows, columns] / 4, _LARGEST_ERROR)
                return inside & (nearer | own[rows, columns]), distance

            unit = max(1, round(len(track.shape) ** 0.5 / 15))
            fits = takes(*track.pixels(unit * _SHIFTS, 1 + len(track.shape) // _SAMPLED))[0].sum(axis=1)
            shift = unit * _SHIFTS[(fits - 0.01 * np.abs(_SHIFTS).sum(axis=1)).argmax()]
            (rows,), (columns,) = track.pixels(shift[None])
            taken, distance = takes(rows, columns)
            if taken.sum() < max(1.0, self.settings.min_visible * len(taken)):
                continue
            if missing and _is_replaced(track, labels[rows[taken], columns[taken]], objects):
                continue
            track.centre = track.centre + shift
            labels[rows[taken], columns[taken]] = track.label
            error[rows[taken], columns[taken]] = distance[taken]
            if missing:
                carried.append(track)
        background = labels == 0
        self._background[background] += _BACKGROUND_RATE * (frame - self._background)[background]
        return labels, carried

    def _update(
        self,
        found: FoundObjects,
        labels: NDArray[np.int32],
        objects: Sequence[_Track],
        continued: Mapping[int, _Track],
        carried: Sequence[_Track],
    ) -> FoundObjects:
        """Continue the tracks by what they have of the map of labels, and return the frame's objects."""
        count = len(objects) + len(self._recent)
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        boxes = boxes_of_labels(labels[None], count)[0]
        kept = []
        for item in objects:
            label, before = item.label, continued.get(item.number)
            if areas[label] < (1 if before else _UNOCCLUDED * len(item.shape)):  # a part of older tracks' objects
                labels[labels == label] = 0
                continue
            kept.append(item)
            x1, y1, x2, y2 = boxes[label - 1].astype(int)
            points = np.argwhere(labels[y1:y2, x1:x2] == label) + np.array([y1, x1])
            item.centre = points.mean(axis=0)
            item.shape = points - item.centre
            if before is None:
                self._recent.append(item)
            else:
                if before.is_occluded(len(points), self.frames, self.settings.max_gap):
                    item.centre, item.shape, item.unoccluded = before.centre, before.shape, before.unoccluded
                velocity = (item.centre - before.found_at) / (item.found - before.found)
                item.velocity = velocity if before.velocity is None else (velocity + before.velocity) / 2
                self._recent[self._recent.index(before)] = item
            item.found_at = item.centre
        kept += [track for track in carried if areas[track.label]]
        slots, rows = (np.array([getattr(t, name) for t in kept], np.int64) for name in ("number", "label"))
        numbers = np.zeros(count + 1, np.uint8 if self.tracks <= 255 else np.int32)  # of the labels
        numbers[rows] = slots
        values = {
            name: np.array([track.row[name] for track in kept], array.dtype).reshape(-1, *array.shape[1:])
            for name, array in found.columns().items()
        }
        visible = [1 if track.found == self.frames else areas[track.label] / len(track.shape) for track in kept]
        values["scores"] = values["scores"] * np.minimum(visible, 1).astype(np.float32)
        values |= {"labels": numbers[labels], "slots": slots, "areas": areas[rows], "boxes": boxes[rows - 1]}
        return replace(found, **values)


def _is_replaced(track: _Track, labels: NDArray[np.int32], objects: Sequence[_Track]) -> bool:
    """Whether a new object is what a missing track's object has become, and the track would spoil it by taking a part.

    It was first found after the track's object was last found. The part is less than half of the track's shape and of
    the new object. `labels` [N] are those of its pixels.
    """
    new = [item for item in objects if item.number > track.newest]
    counts = np.bincount(labels, minlength=1 + max((item.label for item in new), default=0))
    lost = [counts[item.label] / len(item.shape) for item in new]
    return len(labels) < 0.5 * len(track.shape) and any(1 - _UNOCCLUDED < share < 0.5 for share in lost)


def _inside(rows: NDArray[np.int64], columns: NDArray[np.int64], image: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((rows >= 0) & (rows < len(image)) & (columns >= 0) & (columns < image.shape[1]))


class Tracker:
    """Decomposes the frames of a stream, one at a time, and follows their objects.

    Args:
        model: a loaded model, or what `load` takes.
        settings: how objects are linked.
        options: of `decompose_paths` for each frame: `min_area`, `min_score`, `min_contrast`, `outline`,
            `join_alike`, `split_parts`, `tile`, `overlap`, `scale`, `object_size`.

    Raises:
        RecipeError: there is no such option, a limit is out of its range, an overlap is given without
            tiles, or the side of a tile is not known.
    """

    def __init__(self, model: str | Path | LoadedModel, settings: LinkSettings | None = None, **options: Any) -> None:
        check_options(options, OPTIONS, "Tracker")
        check_limits(**options)
        self._loaded = load(model) if isinstance(model, str | Path) else model
        self.linker, self.options = Linker(settings), options
        self.restart()

    def restart(self) -> None:
        """Forget all frames and objects: the next frame is the first of another sequence, whose numbers follow."""
        sides = (self.options.get(name) for name in ("tile", "scale", "object_size", "overlap"))
        in_tiles = tile_side(self._loaded, *sides) is not None
        self.model = self._loaded if in_tiles else self._loaded.for_frames()
        self.linker.restart()

    def update(self, frame: NDArray[np.uint8]) -> FoundObjects:
        """Return the objects of the next frame [H, W, 3], labelled by the numbers of their tracks.

        Raises:
            DataError: the frame has another size than those before it.
            ShapeError: the frame is not uint8 [H, W, 3].
        """
        return self.linker.link(decompose_image(self.model, frame, **self.options), frame)

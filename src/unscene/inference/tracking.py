"""Objects over the frames of a sequence: those of each new frame are linked to the tracks so far.

Pairs of a track and an object have the cost

    c = (w_iou (1 - IoU) + w_latent (1 - cosine) + w_location d) / (w_iou + w_latent + w_location)

of the track's last mask and latent, and of the distance d of the object's centre from the location that the track has
if it keeps its velocity. The unit of d is three times the square root of the track's area, and d is at most 1. The
Hungarian method (Kuhn, 1955) finds the pairs of least cost. Memory does not grow with the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from scipy.optimize import linear_sum_assignment

from unscene.errors import DataError, RecipeError
from unscene.inference.decompose import decompose_image
from unscene.inference.found_objects import FoundObjects
from unscene.runs.loading import LoadedModel, load
from unscene.settings import settings_dataclass


@settings_dataclass
class LinkSettings:
    """How objects are linked. The defaults were chosen by measuring on moving sprites, see docs/guide/tracks.md.

    Attributes:
        iou_weight: of the masks' overlap in the cost.
        latent_weight: of the latents' cosine; models without latents do without it.
        location_weight: of the distance from the expected location.
        max_cost: pairs of a higher cost are not linked.
        max_gap: frames that an object may be missing and still keep its number.
    """

    iou_weight: NonNegativeFloat = 1.0
    latent_weight: NonNegativeFloat = 1.0
    location_weight: NonNegativeFloat = 1.0
    max_cost: Annotated[float, Field(ge=0, le=1)] = 0.9
    max_gap: NonNegativeInt = 10

    def __post_init__(self) -> None:
        if self.iou_weight + self.location_weight == 0:  # not every model has latents
            raise RecipeError("iou_weight or location_weight must be above 0.")


@dataclass(frozen=True)
class _Track:
    """The last sight of an object."""

    mask: NDArray[np.bool_]  # [h, w] within its box
    box: NDArray[np.int64]  # [4]
    area: int
    centre: NDArray[np.float64]  # [2] y and x in pixels
    latent: NDArray[np.float32] | None
    frame: int
    number: int = 0
    velocity: NDArray[np.float64] | None = None  # [2] pixels a frame; None after one sight

    def continued_by(self, seen: _Track) -> _Track:
        """The track after its object was seen again; its velocity is the mean of the last one and the new one."""
        velocity = (seen.centre - self.centre) / (seen.frame - self.frame)
        if self.velocity is not None:
            velocity = (velocity + self.velocity) / 2
        return replace(seen, number=self.number, velocity=velocity)


class Linker:
    """Numbers the objects of one frame after another, from 1; a number belongs to one object over all frames."""

    def __init__(self, settings: LinkSettings | None = None) -> None:
        self.settings = settings or LinkSettings()
        self.frames = self.tracks = 0  # so far
        self._recent: list[_Track] = []
        self._size: tuple[int, ...] = ()

    def link(self, found: FoundObjects) -> FoundObjects:
        """Return the next frame's objects with the numbers of their tracks as labels and `slots`.

        Raises:
            DataError: the frame has another size than those before it.
        """
        self.frames += 1
        if self._size not in ((), found.labels.shape):
            (height, width), (first_height, first_width) = found.labels.shape, self._size
            raise DataError(
                f"frame {self.frames} is {width} x {height} pixels, but the frames before it are {first_width} x "
                f"{first_height}. A sequence has frames of one size: decompose others by themselves."
            )
        self._size = found.labels.shape
        seen = self._seen(found)
        self._recent = [track for track in self._recent if self.frames - track.frame <= self.settings.max_gap + 1]
        cost = np.array([[self._cost(track, other) for other in seen] for track in self._recent])
        cost = cost.reshape(len(self._recent), len(seen))
        allowed = cost <= self.settings.max_cost
        for row, column in zip(*linear_sum_assignment(np.where(allowed, cost, 1e3)), strict=True):
            if allowed[row, column]:
                seen[column] = self._recent[row] = self._recent[row].continued_by(seen[column])
        for column, track in enumerate(seen):
            if not track.number:
                self.tracks += 1
                seen[column] = replace(track, number=self.tracks)
                self._recent.append(seen[column])
        numbers = np.array([track.number for track in seen], np.int64)
        new_labels = np.zeros(int(found.slots.max(initial=0)) + 1, np.uint8 if self.tracks <= 255 else np.int32)
        new_labels[found.slots] = numbers
        return replace(found, labels=new_labels[found.labels], slots=numbers)

    def _seen(self, found: FoundObjects) -> list[_Track]:
        boxes, centres = found.boxes.astype(np.int64), found.centroids()
        return [
            _Track(
                mask=found.labels[y1:y2, x1:x2] == label,
                box=boxes[row],
                area=int(found.areas[row]),
                centre=centres[row],
                latent=None if found.latents is None else found.latents[row],
                frame=self.frames,
            )
            for row, (label, (x1, y1, x2, y2)) in enumerate(zip(found.slots.tolist(), boxes.tolist(), strict=True))
        ]

    def _cost(self, track: _Track, seen: _Track) -> float:
        settings, gap = self.settings, seen.frame - track.frame
        expected = track.centre if track.velocity is None else track.centre + gap * track.velocity
        distance = float(np.linalg.norm(seen.centre - expected)) / (3 * track.area**0.5)
        terms = [
            (settings.iou_weight, 1 - _overlap(track, seen)),
            (settings.location_weight, min(1.0, distance)),
        ]
        if track.latent is not None and seen.latent is not None:
            length = float(np.linalg.norm(track.latent) * np.linalg.norm(seen.latent))
            cosine = float(track.latent @ seen.latent) / length if length else 0.0
            terms.append((settings.latent_weight, min(1.0, 1 - cosine)))
        return float(np.average([term for _, term in terms], weights=[weight for weight, _ in terms]))


def _overlap(one: _Track, other: _Track) -> float:
    """The intersection over union of two masks."""
    x1, y1 = np.maximum(one.box[:2], other.box[:2]).tolist()
    x2, y2 = np.minimum(one.box[2:], other.box[2:]).tolist()
    if x1 >= x2 or y1 >= y2:
        return 0.0
    parts = [
        track.mask[y1 - track.box[1] : y2 - track.box[1], x1 - track.box[0] : x2 - track.box[0]]
        for track in (one, other)
    ]
    shared = np.count_nonzero(parts[0] & parts[1])
    return float(shared / (one.area + other.area - shared))


class Tracker:
    """Decomposes the frames of a stream, one at a time, and follows their objects.

    Args:
        model: a loaded model, or what `load` takes.
        settings: how objects are linked.
        options: of `decompose_paths` for each frame: `min_area`, `min_score`, `min_contrast`, `split_parts`, `tile`,
            `overlap`, `scale`, `object_size`.
    """

    def __init__(self, model: str | Path | LoadedModel, settings: LinkSettings | None = None, **options: Any) -> None:
        self.model = load(model) if isinstance(model, str | Path) else model
        self.linker, self.options = Linker(settings), options

    def update(self, frame: NDArray[np.uint8]) -> FoundObjects:
        """Return the objects of the next frame [H, W, 3], labelled by the numbers of their tracks.

        Raises:
            DataError: the frame has another size than those before it.
            ShapeError: the frame is not uint8 [H, W, 3].
        """
        return self.linker.link(decompose_image(self.model, frame, **self.options))

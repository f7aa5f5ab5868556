"""The tracks of a model on clips with labels or boxes, scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.errors import check_options
from unscene.inference.found_objects import LIMITS, MIN_CONTRAST, check_limits, found_in_squares, refine
from unscene.inference.tracking import Linker
from unscene.metrics.box_matching import BoxMatching
from unscene.metrics.tracking import TrackingScores
from unscene.report.figures import image_bytes
from unscene.scene import Decomposition, Scene


class ClipTracking:
    """Links the objects of one frame after another as `decompose --track` does; holds one clip at a time.

    Args:
        length: number of the frames of a clip.
        min_score: this and the others are as in `decompose_paths`.
        limits: of `refine`.

    RecipeError: an unknown option, or a limit out of its range.
    """

    def __init__(self, length: int, *, min_score: float = 0.0, **limits: Any) -> None:
        check_options(limits, LIMITS, "ClipTracking")
        self.length, self.min_score = length, min_score
        self.limits = {"min_contrast": MIN_CONTRAST} | limits
        check_limits(min_score, **self.limits)
        self.options = {"min_score": min_score, **self.limits}
        self.scores, self.boxes = TrackingScores(), BoxMatching()
        self._start_clip()

    def _start_clip(self) -> None:
        self._linker = Linker()
        self._linked = 0  # frames
        self._frames: list[tuple[NDArray[np.integer], NDArray[np.integer]]] = []  # true and predicted labels

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        """Add the next frames."""
        for index, found in enumerate(found_in_squares(decomposition, self.min_score)):
            pixels = image_bytes(scene.images[index])
            found = refine(found, pixels, **self.limits)
            if scene.boxes is not None:
                self.boxes.add_image(scene.boxes[index].numpy(), found.boxes, found.scores)
            found = self._linker.link(found, pixels)
            self._linked += 1
            if scene.labels is not None:
                self._frames.append((scene.labels[index].numpy(), found.labels))
            if self._linked == self.length:
                self._end_clip()

    def _end_clip(self) -> None:
        if self._frames:
            true, predicted = (np.stack(maps) for maps in zip(*self._frames, strict=True))
            self.scores.add_clip(true, predicted)
        self._start_clip()

    def compute(self) -> dict[str, float | int | None]:
        """The scores of `TrackingScores`, where there are labels, and of the boxes; the last clip may be shorter."""
        self._end_clip()
        return (self.scores.compute() if self.scores.frames else {}) | self.boxes.compute()

"""Frames of a game by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Frame = TypeVar("Frame")


class Playback(Generic[Frame]):
    """The frames of a game by index. One is only reached by playing up to it: quick in order, slow in any other order.

    `start` begins the game anew.
    """

    def __init__(self, start: Callable[[], Iterator[Frame]]) -> None:
        self._start = start
        self._playing: Iterator[Frame] | None = None
        self._next = 0

    def frames(self, indices: NDArray[np.int64]) -> dict[int, Frame]:
        """Some frames, each by its index."""
        frames = {}
        for index in np.unique(indices).tolist():
            playing, first = self._playing, self._next
            if playing is None or index < first:
                playing, first = self._start(), 0
            self._playing = None  # after an error the game begins anew
            frames[index] = next(islice(playing, index - first, None))
            self._playing, self._next = playing, index + 1
        return frames

"""Frames that are played live: of an Atari game, of a camera, of a video or a folder.

Each function checks its source at once and returns an iterator without end. The game's frames and those of files wait
until they are asked for; a camera's do not, so older ones are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unscene.data.atari import BOTTOM, FRAME_SKIP, TOP, new_emulator, random_actions, resized
from unscene.data.image_file import ContrastSettings, change_contrast, read_image
from unscene.errors import DataError, import_extra
from unscene.inference.image_files import NamedImage, named_images
from unscene.inference.newest import Newest

_SHOWN_OF_AN_ACTION = 2  # frames; 30 a second are then the speed of the console, 60 a second


class Frame(NamedTuple):
    pixels: NDArray[np.uint8]  # [H, W, 3], what the model gets
    arrived: float  # when it was there, in seconds of `time.perf_counter`
    starts: bool = False  # another sequence begins: a new game, or the video's first frame
    picture: NDArray[np.uint8] | None = None  # the same in more pixels, which is shown


Frames = Generator[Frame]


def game_frames(game: str, size: int, seed: int, contrast: ContrastSettings) -> Frames:
    """Frames of a game as [size, size, 3], the square of `unscene.data.atari`; a game that is over starts again.

    The actions are uniformly random and last four frames of the console, as those of the data; every second is shown.

    Raises:
        DataError: ale-py is not installed.
        RecipeError: there is no such game.
    """
    emulator = new_emulator(game)

    def frames() -> Frames:
        starts = True
        for action in random_actions(seed):
            for _ in range(_SHOWN_OF_AN_ACTION):
                for _ in range(FRAME_SKIP // _SHOWN_OF_AN_ACTION):
                    emulator.act(action)
                screen = emulator.getScreenRGB()
                arrived = perf_counter()
                change_contrast(screen, contrast)
                yield Frame(resized(screen, size), arrived, starts, screen[TOP:BOTTOM])
                starts = emulator.game_over()
                if starts:
                    emulator.reset_game()

    return frames()


def file_frames(path: Path, contrast: ContrastSettings) -> Frames:
    """The frames of a video or an animation, or the images of a folder in the order of their names, in a loop.

    DataError: there is no image, or one cannot be read.
    """
    _, named = named_images([path], "all")
    named.sort(key=NamedImage.order)

    def frames() -> Frames:
        while True:
            for index, image in enumerate(named):
                arrived = perf_counter()  # before it is decoded
                yield Frame(read_image(image.path, image.frame, contrast), arrived, index == 0)

    return frames()


def camera_frames(number: int, contrast: ContrastSettings) -> Frames:
    """The newest frame of a camera whenever one is asked for.

    Raises:
        DataError: the camera cannot be opened, or gives no more frames.
        ExtraError: OpenCV is not installed.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # of a camera that is missing the error below says enough
    cv2 = import_extra("cv2", "camera")
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise DataError(
            f"camera {number} cannot be opened. Expected the number of a connected camera, from 0, that no other "
            "program uses. Name another one with --camera N, or close that program."
        )
    newest: Newest[Frame] = Newest()

    stopped = Event()

    def read() -> None:
        try:
            reads, bgr = capture.read()
            while reads and not stopped.is_set():
                newest.put(Frame(np.ascontiguousarray(bgr[..., ::-1]), perf_counter()))
                reads, bgr = capture.read()
        finally:
            capture.release()
            newest.close()

    Thread(target=read, daemon=True).start()

    def frames() -> Frames:
        shown = 0
        try:
            while following := newest.after(shown):
                shown, frame = following
                change_contrast(frame.pixels, contrast)
                yield frame
            raise DataError(f"camera {number} gives no more frames. Expected a connected camera: connect it again.")
        finally:
            stopped.set()

    return frames()

"""Play frames live: decompose each, follow its objects, and show masks, boxes and track numbers on it.

The latency of a frame is the time from its arrival until its overlay is encoded. Memory does not grow with time.
"""

from __future__ import annotations

import io
import webbrowser
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from time import perf_counter, sleep
from typing import Any

import numpy as np
from PIL import Image

from unscene.inference.decompose import decompose_image
from unscene.inference.found_objects import FoundObjects
from unscene.inference.frame_sources import Frame, Frames
from unscene.inference.live_server import serving
from unscene.inference.newest import Newest
from unscene.inference.tracking import Tracker
from unscene.report.slots import enlarged, overlay
from unscene.runs.loading import LoadedModel

_SIDE = 320  # pixels of the smallest picture that is shown
_MEASURED, _RECENT = 1000, 60  # the last frames whose times count, at the end and on the page


class LiveView:
    """What the page shows: the newest overlay, and numbers about the last frames."""

    def __init__(self) -> None:
        self.jpeg: Newest[bytes] = Newest()
        self.frames = self.objects = 0
        self._times: deque[tuple[float, float]] = deque(maxlen=_MEASURED)  # arrival and end of each frame

    def show(self, frame: Frame, found: FoundObjects) -> None:
        """Replace the overlay."""
        self.jpeg.put(_encoded(frame, found))
        self.frames, self.objects = self.frames + 1, len(found.slots)
        self._times.append((frame.arrived, perf_counter()))

    def status(self, last: int = _RECENT) -> dict[str, float | int | None]:
        """Numbers by name; times are of the last frames, and None before there are any."""
        times = np.array([*self._times][-last:]).reshape(-1, 2)
        latencies, seconds = np.diff(times, axis=1), float(np.ptp(times[:, 1])) if len(times) else 0.0
        median, most = np.percentile(latencies, (50, 95)) * 1000 if len(times) else (None, None)
        return {
            "frames": self.frames,
            "objects": self.objects,
            "frames_per_second": (len(times) - 1) / seconds if seconds else None,
            "latency_ms": median,
            "latency_ms_95": most,
        }

    def summary(self) -> str:
        """One line about what was played."""
        numbers = self.status(_MEASURED)
        text = f"{self.frames:,} frame{'' if self.frames == 1 else 's'}"
        if numbers["frames_per_second"]:
            text += f", {numbers['frames_per_second']:.1f} a second"
        if numbers["latency_ms"] is not None:
            text += (
                f"; from a frame's arrival to its overlay {numbers['latency_ms']:.0f} ms (median), "
                f"{numbers['latency_ms_95']:.0f} ms (95 % of the frames)"
            )
        return f"{text}."


def play(
    loaded: LoadedModel,
    frames: Frames,
    title: str,
    *,
    port: int = 0,
    browser: bool = False,
    fps: float = 30.0,
    count: int | None = None,
    track: bool = True,
    **options: Any,
) -> LiveView:
    """Play frames on a page that only this machine can open until Ctrl-C, or `count` frames.

    Args:
        loaded: the model.
        frames: of `unscene.inference.frame_sources`; they are closed at the end.
        title: of the page, what is played.
        port: of the page; 0: a free one.
        browser: open the page in the browser.
        fps: frames a second at most.
        count: play so many frames.
        track: follow the objects; else each frame stands alone.
        options: of the `Tracker`.

    Raises:
        KeyboardInterrupt: Ctrl-C; its message is the summary.
        RecipeError: the port is taken, or an option is impossible.
        DataError: the source ended, a frame cannot be read, or the frames have different sizes.
    """
    view = LiveView()
    try:
        with closing(frames), serving(view, f"{loaded.name}: {title}", port) as address:
            print(f"Open {address}  (Ctrl-C ends it)", flush=True)
            if browser:
                webbrowser.open(address)
            tracker = Tracker(loaded, **options)
            for frame in _paced(frames, fps, count):
                if frame.starts:
                    tracker.restart()
                pixels = frame.pixels
                view.show(frame, tracker.update(pixels) if track else decompose_image(loaded, pixels, **options))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(view.summary()) from None
    finally:
        view.jpeg.close()
    return view


def _paced(frames: Iterator[Frame], fps: float, count: int | None) -> Iterator[Frame]:
    """`count` frames, at most `fps` a second; the wait is before a frame is asked for, so that it is new."""
    due = perf_counter()
    for number, frame in enumerate(frames, start=1):
        yield frame
        if number == count:
            return
        due = max(due + 1 / fps, perf_counter())
        sleep(max(0.0, due - perf_counter()))


def _encoded(frame: Frame, found: FoundObjects) -> bytes:
    """A JPEG of the frame with its objects; a small one is enlarged, so that there is room for the numbers."""
    zoom = -(-_SIDE // min(frame.pixels.shape[:2]))
    labels = enlarged(found.labels, zoom)
    picture = enlarged(frame.pixels, zoom)
    if frame.picture is not None:
        size = labels.shape[1], labels.shape[0]
        picture = np.asarray(Image.fromarray(frame.picture).resize(size, Image.Resampling.NEAREST))
    drawn = overlay(picture, labels, found.boxes * zoom, slots=found.slots, tint=0.25)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", quality=85, subsampling=0)  # thin lines keep their colours
    return file.getvalue()

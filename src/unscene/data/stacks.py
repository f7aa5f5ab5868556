"""Images that Pillow does not read: those of microscopes, by `tifffile`, and the frames of videos, by PyAV.

Both are extras (`microscopy`, `video`). `image_file` asks this module for files of these kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError, UnsceneError, import_extra, refusal

Result = TypeVar("Result")

_last_video: dict[Path, tuple[Any, Iterator[Any], int]] = {}  # the one that is open, its frames, the next one's number


def read_planes(path: Path, frame: int) -> NDArray[Any]:
    """One frame of a file as channels [C, H, W], in the file's own type. DataError: it cannot be read."""
    return _checked(path, lambda: _video_frame(path, frame) if is_video(path) else _stack(path)[frame])


def count_frames(path: Path) -> int:
    """The frames of a video, or the planes of a stack: all its axes but the channels, height and width."""
    return _checked(path, lambda: _count_packets(path) if is_video(path) else len(_stack(path)))


def is_video(path: Path) -> bool:
    """Whether a file is a video and no TIFF, by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) not in (b"II", b"MM")


def _stack(path: Path) -> NDArray[Any]:
    status = path.stat()
    return _planes_of(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _planes_of(path: Path, _time: int, size: int) -> NDArray[Any]:
    """[frames, C, H, W] of the first series; mapped from the file where that is possible."""
    tifffile = import_extra("tifffile", "microscopy")
    with tifffile.TiffFile(path) as file:
        if not (file.is_ome or file.is_imagej):
            raise DataError("has lost the description of its axes: it is damaged or cut short. Copy or save it again.")
        series = file.series[0]
        pages = [page for page in series.pages if page is not None]
        segments = [pair for page in pages for pair in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max((offset + length for offset, length in segments), default=0) > size:  # tifffile would fill with zeros
            raise DataError("is cut short. Copy or save it again.")
        axes, stored = series.axes, series.asarray(out="memmap" if series.dataoffset is not None else None)
    if "Y" not in axes or "X" not in axes:
        raise DataError(f"has the axes {axes}, without Y and X. Save it again as an image.")
    colour = [axis for axis in axes if axis in "CS"]
    order = [axis for axis in axes if axis not in "CSYX"] + colour + ["Y", "X"]
    moved = stored.transpose([axes.index(axis) for axis in order])
    height, width = moved.shape[-2:]
    channels = int(np.prod(moved.shape[len(order) - 2 - len(colour) : -2], dtype=int))
    return moved.reshape(-1, channels, height, width)


def _video_frame(path: Path, number: int) -> NDArray[Any]:
    """The frame of a number. The next frame of the same video is read on; an earlier one from the beginning again."""
    if path not in _last_video or _last_video[path][2] > number:
        for container, _, _ in _last_video.values():
            container.close()
        _last_video.clear()
        container = import_extra("av", "video").open(str(path))
        _last_video[path] = container, container.decode(video=0), 0
    container, frames, following = _last_video[path]
    picture: Any = None
    for index in range(following, number + 1):
        picture = next(frames, None)
        if picture is None:
            raise DataError(f"ends before frame {number + 1}. Copy or save it again.")
        _last_video[path] = container, frames, index + 1
    return np.asarray(picture.to_ndarray(format="rgb24")).transpose(2, 0, 1)


def _count_packets(path: Path) -> int:
    with import_extra("av", "video").open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _checked(path: Path, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except DataError as error:
        raise DataError(f"{path} {error}") from error
    except UnsceneError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} does not fit into the memory. Reduce it with another program first.") from error
    except Exception as error:  # whatever the readers raise for a damaged file
        reason = refusal(error) if isinstance(error, OSError) else None
        raise DataError(f"{path} {reason or f'is damaged ({error}). Copy or save it again.'}") from error

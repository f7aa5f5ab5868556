"""Writes scenes in parts that outlive Ctrl-C, a kill and a full disk, for sources that take long.

Every thousand scenes are a file of their own, complete or absent (`hdf5.writer`), in the folder `.NAME.parts` beside
the new file NAME. A part records what the scenes were made from and how far the source had been read. The next writer
of the same file continues after the last part; at the end all parts are joined, and the folder is removed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.hdf5.reader import SceneStore
from unscene.data.hdf5.writer import explained, refuse_existing, write_scenes
from unscene.errors import DataError
from unscene.files import lock, removed_if_empty

_BATCHES_A_PART = 16
_JOINED_AT_ONCE = 64  # scenes

_log = logging.getLogger(__name__)

Position = dict[str, int]  # how far a source has been read, in its own terms


@dataclass
class SceneParts:
    """The parts of an unfinished file, see `scene_parts`."""

    path: Path
    folder: Path  # of the parts
    made_from: dict[str, Any]  # what decides the scenes
    position: Position  # position of the source at the end of the last part, or its start
    sizes: list[int] = field(default_factory=list)  # numbers of scenes of the finished parts

    def __len__(self) -> int:
        return sum(self.sizes)

    def add(self, batches: Iterable[Mapping[str, NDArray]]) -> None:
        """Write the batches of a source after `self.position`, which it updates, part after part."""
        rest = iter(batches)
        for first in rest:
            batches_of_part = chain([first], islice(rest, _BATCHES_A_PART - 1))
            settings = {"made_from": self.made_from, "position": self.position}  # read when the part is full
            part = self._part(len(self.sizes))
            self.sizes.append(write_scenes(part, batches_of_part, None, {"settings": settings}, progress=False))

    def join(self, attributes: Mapping[str, Any], progress: bool = True) -> int:
        """Write the scenes of all parts to the new file; arguments, result and errors as those of `write_scenes`."""
        return write_scenes(self.path, self._batches(), len(self), attributes, progress)

    def _batches(self) -> Iterator[dict[str, NDArray]]:
        for number in range(len(self.sizes)):
            store = SceneStore(self._part(number))  # one at a time: each holds its factors
            for start in range(0, len(store), _JOINED_AT_ONCE):
                yield store.batch(np.arange(start, min(start + _JOINED_AT_ONCE, len(store))))
            store.close()

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.h5"

    def resume(self, fits: Callable[[Position], bool]) -> None:
        """Take the parts of an earlier writer; remove damaged ones, those of something else, and what does not fit."""
        for part in sorted(self.folder.glob("*.h5")):
            with suppress(DataError, LookupError, TypeError, AttributeError):
                store = SceneStore(part)
                settings = store.attributes["settings"]
                made_from, position = settings["made_from"], settings["position"]
                same = made_from == self.made_from and position.keys() == self.position.keys()
                if same and part == self._part(len(self.sizes)) and fits(position):
                    self.sizes.append(len(store))
                    self.position = position
                    continue
            part.unlink()
            _log.warning("removed %s, a part of another conversion", part)


@contextmanager
def scene_parts(
    path: str | Path,
    made_from: Mapping[str, Any],
    start: Mapping[str, int],
    fits: Callable[[Position], bool] = lambda position: True,
) -> Iterator[SceneParts]:
    """The parts of the new file `path`, at first those that an interrupted writer finished.

    `made_from` decides the scenes: parts made from something else are removed, and logged. `start` is the source's
    position before its first scene; `fits` tells whether a part that ends at a position can be used. When anything
    stops the writing, the finished parts stay, and the log says where; without any, no new file or folder stays.
    RunError: another process writes the same file. DataError: the file already exists, or its folder cannot be written.
    """
    path = Path(path)
    folder = path.with_name(f".{path.name}.parts")
    if path.exists() and folder.is_dir():  # the writer was killed after the last part was joined
        with lock(folder, path):
            shutil.rmtree(folder)
    refuse_existing(path)
    parts = None
    with removed_if_empty(path.parent):
        with explained(path, path):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with lock(folder, path):
                parts = SceneParts(path, folder, dict(made_from), dict(start))
                parts.resume(fits)
                yield parts
        except BaseException as error:
            if not parts:
                raise
            kept = f"{len(parts):,} scenes are kept in {folder}; the same command resumes"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(f"Interrupted; {kept}.") from None
            _log.warning("%s", kept)
            raise
        finally:
            if parts is not None and (path.exists() or not parts):
                shutil.rmtree(folder)

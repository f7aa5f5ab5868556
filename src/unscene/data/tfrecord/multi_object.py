"""DeepMind's Multi-Object Datasets: the scenes of a TFRecord file, checked against the layout of their data set.

The files are in the bucket `multi-object-datasets`, GZIP. What a file's records hold is its `RecordLayout`
(`tfrecord.multi_dsprites`, `tfrecord.clevr`). Every scene has entries, the background first and then the objects;
`visibility` states which of them exist.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unscene.data.samples import boxes_of_labels
from unscene.data.tfrecord.example import Feature, parse_example
from unscene.data.tfrecord.records import read_records
from unscene.errors import DataError

START = {"records": 0, "damaged": 0}  # a `SceneRecords.position`

_KNOWN_BY_SIZE = {  # bytes of an image and of its masks
    (64 * 64 * 3, 6 * 64 * 64): "multi_dsprites_colored_on_grayscale.tfrecords",
    (64 * 64, 4 * 64 * 64): "multi_dsprites_binarized.tfrecords",
    (64 * 64 * 3, 5 * 64 * 64): "multi_dsprites_colored_on_colored.tfrecords",
    (240 * 320 * 3, 11 * 240 * 320): "clevr_with_masks_train.tfrecords",
    (64 * 64 * 3, 7 * 64 * 64): "objects_room_train.tfrecords",
    (35 * 35 * 3, 4 * 35 * 35): "tetrominoes_train.tfrecords",
}
_BATCH = 64
_SHOWN = 5  # damaged records named one by one

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordLayout:
    """What every record of a published file holds: type and shape of each feature, `image` and `mask` among them."""

    file: str  # its published name
    features: Mapping[str, tuple[type[np.generic], tuple[int, ...]]]

    def shaped(self, features: Mapping[str, Feature], where: str) -> dict[str, NDArray]:
        """The features of one record in their shapes; `where` names the record in messages."""
        rows = {name: _row(values) for name, values in features.items()}
        scene, wrong = {}, []
        for name, (kind, shape) in self.features.items():
            if name not in rows:
                wrong.append(f"'{name}' is missing")
            elif rows[name].dtype == kind and rows[name].size == math.prod(shape):
                scene[name] = rows[name].reshape(shape)
            else:
                found, expected = rows[name], f"{math.prod(shape):,} x {kind.__name__}"
                wrong.append(f"'{name}' is {found.size:,} x {found.dtype}, not {expected}")
        if wrong:
            image, masks = (rows[name].size if name in rows else 0 for name in ("image", "mask"))
            other = _KNOWN_BY_SIZE.get((image, masks), self.file)
            names = ", ".join(sorted(features)) or "none"
            looks = f"It looks like {other}" if other != self.file else f"Its features are {names}"
            text = f"{'; '.join(wrong)}. {looks}. Give {self.file} instead."
            raise DataError(f"{where} is no scene of {self.file}: {text}")
        return scene


def _row(values: Feature) -> NDArray:
    """One row of numbers; bytes may also have been written as one entry."""
    return np.frombuffer(b"".join(values), np.uint8) if isinstance(values, list) else values


class SceneRecords:
    """The scenes of a TFRecord file: iterating yields the features of one record after another, in their shapes.

    With `skip_damaged`, damaged records are left out where reading can continue; the log names the first of them.
    Records before `position`, where an earlier reading ended, are decompressed and verified, but not parsed. `count`
    limits the scenes, those of the earlier reading included.

    Attributes:
        position: of the last scene: how many `records` have been read, and how many `damaged` ones are among them.
        damaged: number of records left out so far.

    Raises:
        DataError: `count` is below 1; while iterating: the file is missing, damaged or another one.
    """

    def __init__(
        self,
        path: Path,
        layout: RecordLayout,
        skip_damaged: bool,
        progress: bool,
        count: int | None,
        position: Mapping[str, int] = START,
    ) -> None:
        if count is not None and count < 1:
            raise DataError(f"count must be 1 or more, but is {count}.")
        self._path, self._layout, self._skip_damaged, self._progress = path, layout, skip_damaged, progress
        self.position, self.damaged = dict(position), position["damaged"]
        self._first, self._seen, self._count = position["records"], 0, count

    def __iter__(self) -> Iterator[dict[str, NDArray]]:
        return islice(self._scenes(), None if self._count is None else self._count - scenes_before(self.position))

    def _scenes(self) -> Iterator[dict[str, NDArray]]:
        size = self._path.stat().st_size if self._path.is_file() else None
        name = f"{self._path.name}, from record {self._first:,}" if self._first else self._path.name
        with tqdm(total=size, unit="B", unit_scale=True, desc=name, file=sys.stderr, disable=not self._progress) as bar:
            for record in read_records(self._path, self._leave_out if self._skip_damaged else None):
                self._seen = record.index + 1
                if self._seen > self._first:
                    try:
                        features = parse_example(record.data, record.where)
                    except DataError as error:
                        if not self._skip_damaged:
                            raise
                        self._leave_out(error)
                        continue
                    scene = self._layout.shaped(features, record.where)
                    self.position.update(records=self._seen, damaged=self.damaged)
                    yield scene
                bar.update(record.file_bytes - bar.n)

    def _leave_out(self, error: DataError) -> None:
        if self._seen < self._first:
            return  # the earlier reading has counted it
        self.damaged += 1
        if self.damaged <= _SHOWN:
            _log.warning("left out: %s", error)

    def report_damage(self, kept: int) -> None:
        """Log how many records were left out, if any."""
        if self.damaged:
            _log.warning("%s: %d damaged records left out, %d kept", self._path.name, self.damaged, kept)


def scenes_before(position: Mapping[str, int]) -> int:
    """Number of scenes before a `SceneRecords.position`."""
    return position["records"] - position["damaged"]


def object_factors(scene: Mapping[str, NDArray], names: Iterable[str]) -> dict[str, NDArray]:
    """The factors of a scene's objects without the background, 0 where there is no object, and their `visibility`."""
    present = scene["visibility"][1:] > 0  # [M]
    factors = {name: np.where(present.reshape(-1, *[1] * (scene[name].ndim - 1)), scene[name][1:], 0) for name in names}
    return factors | {"visibility": present.astype(np.float32)}


def batches(scenes: Iterable[dict[str, NDArray]]) -> Iterator[dict[str, NDArray]]:
    """Scenes of the same arrays, stacked 64 at a time (the last batch may be smaller), with the `boxes` of `labels`."""
    rest = iter(scenes)
    while chunk := list(islice(rest, _BATCH)):
        batch = {name: np.stack([scene[name] for scene in chunk]) for name in chunk[0]}
        yield batch | {"boxes": boxes_of_labels(batch["labels"], batch["visibility"].shape[1])}

"""DeepMind's Multi-Object Datasets: from a TFRecord file, checked against its layout, to an HDF5 file of scenes.

Every scene has entries, the background first and then the objects; `visibility` states which of them exist.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unscene.data.hdf5.resumable_writer import scene_parts
from unscene.data.samples import boxes_of_labels
from unscene.data.tfrecord.example import Feature, parse_example
from unscene.data.tfrecord.records import read_records
from unscene.errors import DataError

Arrays = Mapping[str, NDArray]  # of one record or scene

_KNOWN_BY_SIZE = {  # bytes of an image and of its masks
    (64 * 64 * 3, 6 * 64 * 64): "multi_dsprites_colored_on_grayscale.tfrecords",
    (64 * 64, 4 * 64 * 64): "multi_dsprites_binarized.tfrecords",
    (64 * 64 * 3, 5 * 64 * 64): "multi_dsprites_colored_on_colored.tfrecords",
    (240 * 320 * 3, 11 * 240 * 320): "clevr_with_masks_train.tfrecords",
    (64 * 64 * 3, 7 * 64 * 64): "objects_room_train.tfrecords",
    (35 * 35 * 3, 4 * 35 * 35): "tetrominoes_train.tfrecords",
}
_START = {"records": 0, "sound": 0}  # records read, and the undamaged ones among them
_BATCH = 64
_SHOWN = 5  # damaged records named one by one

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordLayout:
    """What every record of a published file holds: type and shape of each feature, `image` and `mask` among them."""

    file: str  # its published name
    source: str  # the data set, as `unscene convert` names it
    features: Mapping[str, tuple[type[np.generic], tuple[int, ...]]]

    def shaped(self, features: Mapping[str, Feature], where: str) -> dict[str, NDArray]:
        """The features of one record in their shapes; `where` names the record in messages."""
        rows = {  # bytes may also have been written as one entry
            name: np.frombuffer(b"".join(values), np.uint8) if isinstance(values, list) else values
            for name, values in features.items()
        }
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


def convert_scenes(
    layout: RecordLayout,
    scene_of_record: Callable[[Arrays], Arrays | None],
    tfrecords: str | Path,
    out: str | Path,
    skip_damaged: bool = False,
    progress: bool = True,
    count: int | None = None,
    settings: Mapping[str, Any] | None = None,
    attributes: Callable[[int], dict[str, Any]] = lambda scenes: {},
) -> int:
    """Write the scenes of a TFRecord file, gzip or unpacked, to the new HDF5 file `out`; return their number.

    The same command resumes an interrupted conversion: the finished scenes are in a folder beside `out`
    (`resumable_writer`), and their records are only decompressed and verified again. With `skip_damaged`, damaged
    records are left out where reading can continue; the log names the first of them, and the attribute
    `damaged_left_out` is their number. `count` limits the undamaged records that are read.

    `scene_of_record` returns image, labels, `visibility` and factors, or None to leave a record out; `settings` are all
    that decides it, `attributes` more attributes of the new file, from the number of scenes.

    Raises:
        DataError: the TFRecord file is missing, damaged or of other data, `out` already exists or cannot be written,
            there are fewer than `count` records, or no scene is left.
    """
    tfrecords = Path(tfrecords)
    if count is not None and count < 1:
        raise DataError(f"count must be 1 or more, but is {count}.")
    size = tfrecords.stat().st_size if tfrecords.is_file() else 0
    made_from = {**(settings or {}), "file": tfrecords.name, "bytes": size, "unscene_version": version("unscene")}
    with scene_parts(out, made_from, _START, lambda end: count is None or end["sound"] <= count) as parts:
        position = parts.position
        records = _read_records(tfrecords, layout, skip_damaged, progress, position)
        left = None if count is None else count - position["sound"]
        scenes = map(scene_of_record, islice(records, left))
        parts.add(_batches(scene for scene in scenes if scene is not None))
        if count is not None and position["sound"] < count:
            found = f"{position['sound']:,} records, fewer than the {count:,} asked for"
            raise DataError(f"{tfrecords.name}: {found}. Set count to {position['sound']}.")
        damaged = position["records"] - position["sound"]
        source = f"{layout.source}, converted from {tfrecords.name}"
        about = {"source": source, "records_read": position["sound"], "damaged_left_out": damaged}
        about |= {"settings": settings} if settings else {}
        written = parts.join(about | attributes(len(parts)), progress)
    if damaged:
        _log.warning("%s: %d damaged records left out, %d kept", tfrecords.name, damaged, written)
    return written


def _read_records(
    path: Path, layout: RecordLayout, skip_damaged: bool, progress: bool, position: dict[str, int]
) -> Iterator[Arrays]:
    """Yield the features of one record after another, in their shapes, and update `position`, which was read before.

    Records before it are only verified.
    """
    first, seen, damaged = position["records"], 0, position["records"] - position["sound"]

    def leave_out(error: DataError) -> None:
        nonlocal damaged
        if seen >= first:  # the earlier conversion has counted the others
            damaged += 1
            if damaged <= _SHOWN:
                _log.warning("left out: %s", error)

    size = path.stat().st_size if path.is_file() else None
    name = f"{path.name}, from record {first:,}" if first else path.name
    with tqdm(total=size, unit="B", unit_scale=True, desc=name, file=sys.stderr, disable=not progress) as bar:
        for record in read_records(path, leave_out if skip_damaged else None):
            seen = record.index + 1
            bar.update(record.file_bytes - bar.n)
            if seen <= first:
                continue
            try:
                features = parse_example(record.data, record.where)
            except DataError as error:
                if not skip_damaged:
                    raise
                leave_out(error)
                continue
            scene = layout.shaped(features, record.where)
            position.update(records=seen, sound=seen - damaged)
            yield scene
    position["records"] = position["sound"] + damaged  # all after the last scene are damaged


def object_factors(scene: Arrays, names: Iterable[str]) -> dict[str, NDArray]:
    """The factors of a scene's objects without the background, 0 where there is no object, and their `visibility`."""
    present = scene["visibility"][1:] > 0  # [M]
    factors = {name: np.where(present.reshape(-1, *[1] * (scene[name].ndim - 1)), scene[name][1:], 0) for name in names}
    return factors | {"visibility": present.astype(np.float32)}


def _batches(scenes: Iterable[Arrays]) -> Iterator[dict[str, NDArray]]:
    """Scenes of the same arrays, stacked 64 at a time (the last batch may be smaller), with the `boxes` of `labels`."""
    rest = iter(scenes)
    while chunk := list(islice(rest, _BATCH)):
        batch = {name: np.stack([scene[name] for scene in chunk]) for name in chunk[0]}
        yield batch | {"boxes": boxes_of_labels(batch["labels"], batch["visibility"].shape[1])}

"""DeepMind's Multi-dSprites, "coloured sprites on grayscale", from its TFRecord file to an HDF5 file of scenes.

The file (bucket `multi-object-datasets`, `multi_dsprites/multi_dsprites_colored_on_grayscale.tfrecords`, GZIP) gives
every scene six entries, the background first and then up to five sprites; `visibility` says which of them exist.
What comes out are the arrays that `multi_dsprites.MultiDSprites` draws, so that one may stand for the other; only
`visibility` is 0 or 1 here, as in the file, and not the share that is seen.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unscene.data.label_boxes import boxes_of_labels
from unscene.data.store import write_scenes
from unscene.data.tf_example import Feature, parse_example
from unscene.data.tfrecord import read_records
from unscene.errors import DataError

_FILE = "multi_dsprites_colored_on_grayscale.tfrecords"
_ENTRIES = 6  # of a scene, background included
_SCHEMA: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "image": (np.uint8, (64, 64, 3)),
    "mask": (np.uint8, (64, 64, _ENTRIES, 1)),
    **dict.fromkeys(("x", "y", "shape", "visibility", "orientation", "scale"), (np.float32, (_ENTRIES,))),
    "color": (np.float32, (_ENTRIES, 3)),
}
_OTHER_FILES = {  # bytes of an image and of its masks
    (64 * 64, 4 * 64 * 64): "multi_dsprites_binarized.tfrecords",
    (64 * 64 * 3, 5 * 64 * 64): "multi_dsprites_colored_on_colored.tfrecords",
    (240 * 320 * 3, 11 * 240 * 320): "clevr_with_masks_train.tfrecords",
    (64 * 64 * 3, 7 * 64 * 64): "objects_room_train.tfrecords",
    (64 * 64 * 3, 10 * 64 * 64): "a test file of objects_room",
    (64 * 64 * 3, 4 * 64 * 64): "objects_room_test_empty_room.tfrecords",
    (35 * 35 * 3, 4 * 35 * 35): "tetrominoes_train.tfrecords",
}
_BATCH = 64
_SHOWN = 5  # damaged records named one by one

_log = logging.getLogger(__name__)


def convert_multi_dsprites(
    tfrecords: str | Path,
    out: str | Path,
    skip_damaged: bool = False,
    progress: bool = True,
    count: int | None = None,
) -> int:
    """Write the scenes of the TFRecord file to a new HDF5 file (`store`), reading and writing as a stream.

    Args:
        tfrecords: `multi_dsprites_colored_on_grayscale.tfrecords`, as it was downloaded (gzip) or unpacked.
        out: the new file; it appears under this name only when it is complete.
        skip_damaged: leave damaged records out, where the file can be read on; their number is logged, and kept in
            the new file's attribute `damaged_left_out`.
        progress: show a bar with the time left on stderr.
        count: convert only the first so many scenes; all of them by default.

    Returns:
        The number of scenes written.

    Raises:
        DataError: the TFRecord file is missing, damaged or another one, `out` is already there or cannot be written,
            or there are fewer than `count` scenes.
    """
    tfrecords = Path(tfrecords)
    if count is not None and count < 1:
        raise DataError(f"count must be 1 or more, but is {count}.")
    attributes: dict[str, Any] = {"source": f"multi_dsprites, converted from {tfrecords.name}", "damaged_left_out": 0}

    def leave_out(error: DataError) -> None:
        attributes["damaged_left_out"] += 1
        if attributes["damaged_left_out"] <= _SHOWN:
            _log.warning("left out: %s", error)

    scenes = _scenes(tfrecords, leave_out if skip_damaged else None, progress and count is None)
    batches = _batches(islice(scenes, count))
    written = write_scenes(out, batches, count, attributes, progress and count is not None)
    if attributes["damaged_left_out"]:
        _log.warning(
            "%s: %d damaged records left out, %d kept", tfrecords.name, attributes["damaged_left_out"], written
        )
    return written


def _scenes(path: Path, on_damage: Callable[[DataError], None] | None, progress: bool) -> Iterator[dict[str, NDArray]]:
    """The features of every record in their shapes, behind a bar that counts the bytes of the file."""
    size = path.stat().st_size if path.is_file() else None
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=path.name, file=sys.stderr, disable=not progress)
    with bar:
        for record in read_records(path, on_damage):
            try:
                features = parse_example(record.data, record.where)
            except DataError as error:
                if on_damage is None:
                    raise
                on_damage(error)
                continue
            yield _shaped(features, record.where)
            bar.update(record.file_bytes - bar.n)


def _shaped(features: Mapping[str, Feature], where: str) -> dict[str, NDArray]:
    """The features of one scene, each in the shape of the schema."""
    scene, wrong = {}, []
    for name, (kind, shape) in _SCHEMA.items():
        values = _flat(features.get(name))
        if values is not None and values.dtype == kind and values.size == math.prod(shape):
            scene[name] = values.reshape(shape)
        elif values is None:
            wrong.append(f"'{name}' is missing")
        else:
            wrong.append(f"'{name}' is {values.size:,} x {values.dtype}, not {math.prod(shape):,} x {kind.__name__}")
    if wrong:
        sizes = [0 if (values := _flat(features.get(name))) is None else values.size for name in ("image", "mask")]
        other = _OTHER_FILES.get((sizes[0], sizes[1]))
        looks = f"It looks like {other}. " if other else f"Its features are {', '.join(sorted(features)) or 'none'}. "
        raise DataError(f"{where} is no scene of {_FILE}: {'; '.join(wrong)}. {looks}Give {_FILE} instead.")
    return scene


def _flat(values: Feature | None) -> NDArray | None:
    """One row of numbers; bytes may also have been written as one entry."""
    if isinstance(values, list):
        return np.frombuffer(b"".join(values), np.uint8) if values else None
    return values


def _batches(scenes: Iterator[dict[str, NDArray]]) -> Iterator[dict[str, NDArray]]:
    while scenes_of_batch := list(islice(scenes, _BATCH)):
        yield _as_generated({name: np.stack([scene[name] for scene in scenes_of_batch]) for name in _SCHEMA})


def _as_generated(batch: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The arrays as `multi_dsprites.MultiDSprites` gives them: a label map, boxes, and factors of the sprites alone."""
    mask = batch["mask"][..., 0].argmax(axis=3).astype(np.uint8)  # one-hot, 0 or 255; [B, H, W, 6] to [B, H, W]
    present = batch["visibility"][:, 1:] > 0  # [B, M]
    factors = {name: np.where(present, batch[name][:, 1:], 0) for name in ("scale", "orientation", "x", "y")}
    return {
        "image": batch["image"],
        "mask": mask,
        "boxes": boxes_of_labels(mask, _ENTRIES - 1),
        "shape": np.rint(np.where(present, batch["shape"][:, 1:], 0)).astype(np.uint8),
        **factors,
        "color": np.where(present[..., None], batch["color"][:, 1:], 0),
        "visibility": present.astype(np.float32),
    }

"""DeepMind's "CLEVR (with masks)", from its TFRecord file to an HDF5 file of scenes of 128 px: the field's CLEVR6.

In the file (`clevr_with_masks/clevr_with_masks_train.tfrecords`, 10.5 GB) every scene has 240 x 320 px and eleven
entries: the background, then up to ten objects.

    kept       scenes of 3 to 6 objects, sum of visibility[1:]                        (R-MONet, Section 4, as in IODINE)
    cropped    rows 29 to 220 and columns 64 to 255                                   (MONet; IODINE's public code)
    image      192 px to 128 px, bilinear between the centres of pixels, no low-pass, rounded
    mask       192 px to 128 px, the pixel with the nearest centre
    split      the first 48,400 scenes train, the next 1,600 test                     (R-MONet, Section 4)

R-MONet resizes "as MONet", but MONet's code is not public. This module resizes as TensorFlow 2 (Slot Attention) and
PyTorch's `interpolate` do. TensorFlow 1 (IODINE) samples from the pixels' corners, which shifts the image by a quarter
of a pixel. About 6 % of the objects have no pixel in the crop; their rows of boxes are 0.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unscene.data.hdf5.resumable_writer import scene_parts
from unscene.data.tfrecord.multi_object import (
    START,
    RecordLayout,
    SceneRecords,
    batches,
    object_factors,
    scenes_before,
)
from unscene.errors import DataError, ShapeError

_ENTRIES = 11  # of a scene, background included
_INTEGERS = ("size", "material", "shape", "color")
_REALS = ("x", "y", "z", "rotation")
LAYOUT = RecordLayout(
    "clevr_with_masks_train.tfrecords",
    {
        "image": (np.uint8, (240, 320, 3)),
        "mask": (np.uint8, (_ENTRIES, 240, 320, 1)),
        **dict.fromkeys(_INTEGERS, (np.uint8, (_ENTRIES,))),
        **dict.fromkeys((*_REALS, "visibility"), (np.float32, (_ENTRIES,))),
        "pixel_coords": (np.float32, (_ENTRIES, 3)),
    },
)
ROWS, COLUMNS = slice(29, 221), slice(64, 256)
SIZE = 128  # two thirds of the crop
NUM_TRAIN, NUM_TEST = 48_400, 1_600
_RESIZED = "bilinear between pixel centres, no low-pass; mask: nearest centre"

_log = logging.getLogger(__name__)


def convert_clevr(
    tfrecords: str | Path,
    out: str | Path,
    skip_damaged: bool = False,
    progress: bool = True,
    count: int | None = None,
    min_objects: int = 3,
    max_objects: int = 6,
) -> int:
    """Write the scenes of the TFRecord file, gzip or unpacked, to the new HDF5 file `out`; return their number.

    The same command resumes an interrupted conversion: the finished scenes are in a folder beside `out`
    (`resumable_writer`), and their records are only decompressed and verified again.

    The new file has `image`, `mask`, `boxes`, and the factors of the ten possible objects, 0 where there is none;
    `pixel_coords` are those of the uncropped image. Its attributes `train_first`, `train_count`, `test_first` and
    `test_count` state which scenes train and test. With `skip_damaged`, damaged records are left out where reading can
    continue; the attribute `damaged_left_out` is their number. `count` limits the undamaged records that are read;
    `min_objects` and `max_objects` do not count the background.

    Raises:
        DataError: the TFRecord file is missing, damaged or of other data, `out` already exists or cannot be written,
            there are fewer than `count` records, no scene has so many objects, or a number is out of range.
    """
    tfrecords = Path(tfrecords)
    if not 0 <= min_objects <= max_objects:
        raise DataError(
            f"min_objects must be from 0 to max_objects, but they are {min_objects} and {max_objects}. "
            f"0 and {_ENTRIES - 1} keep every scene."
        )
    settings = {"min_objects": min_objects, "max_objects": max_objects, "size": SIZE, "resized": _RESIZED}
    provenance = settings | {
        "file": tfrecords.name,
        "bytes": tfrecords.stat().st_size if tfrecords.is_file() else 0,
        "unscene_version": version("unscene"),
    }
    with scene_parts(out, provenance, START, lambda end: count is None or scenes_before(end) <= count) as parts:
        records = SceneRecords(tfrecords, LAYOUT, skip_damaged, progress, count, parts.position)
        kept = (scene for scene in records if min_objects <= scene["visibility"][1:].sum() <= max_objects)
        parts.add(batches(map(cropped_scene, kept)), records.position)
        found = scenes_before(records.position)
        read = f"{tfrecords.name}: {found:,} records"
        if count is not None and found < count:
            raise DataError(f"{read}, fewer than the {count:,} asked for. Set count to {found}.")
        if not len(parts):
            raise DataError(
                f"{read}, none of {min_objects} to {max_objects} objects. --min-objects 0 --max-objects 10 keeps all."
            )
        source = {"source": f"clevr, converted from {tfrecords.name}", "records_read": found}
        attributes = source | {"damaged_left_out": records.damaged, "settings": settings} | split(len(parts))
        written = parts.join(attributes, progress)
    records.report_damage(written)
    return written


def split(count: int) -> dict[str, int]:
    """The first index and the number of the scenes that train and test, of `count`; too few are logged."""
    train = min(count, NUM_TRAIN)
    test = min(count - train, NUM_TEST)
    if test < NUM_TEST:
        _log.warning(
            "%s scenes are fewer than the %s of the paper: %s train and %s test. A recipe that names more needs other "
            "numbers: --test.count %d and so on.",
            *(f"{number:,}" for number in (count, NUM_TRAIN + NUM_TEST, train, test)),
            test,
        )
    return {"train_first": 0, "train_count": train, "test_first": train, "test_count": test}


def cropped_scene(scene: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """A record as a scene of 128 px: image, label map, and the factors of the objects alone, 0 where there is none."""
    masks = downscale_nearest(scene["mask"][:, ROWS, COLUMNS, 0])  # [11, 128, 128], one-hot, 0 or 255
    return {
        "image": downscale_bilinear(scene["image"][ROWS, COLUMNS]),
        "labels": masks.argmax(axis=0).astype(np.uint8),
        **object_factors(scene, (*_INTEGERS, *_REALS, "pixel_coords")),
    }


def downscale_bilinear(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image [3 H, 3 W, C] as [2 H, 2 W, C], rounded, halves up.

    The centre of pixel d of the smaller image lies at 1.5 (d + .5) - .5 = 1.5 d + .25 of the larger one. So three
    pixels a b c become (3 a + b) / 4 and (b + 3 c) / 4, along the rows and then along the columns.

    Raises:
        ShapeError: height or width is no multiple of 3.
    """
    _check_threes(*image.shape[:2])
    sums = _blended(_blended(image.astype(np.uint16)).swapaxes(0, 1)).swapaxes(0, 1)  # 16 times the values
    return np.ascontiguousarray(sums + 8 >> 4, np.uint8)


def _blended(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """[3 N, ...] to [2 N, ...], 4 times the values."""
    a, b, c = pixels[0::3], pixels[1::3], pixels[2::3]
    return np.stack([3 * a + b, b + 3 * c], axis=1).reshape(-1, *pixels.shape[1:])


def downscale_nearest(maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return maps [..., 3 H, 3 W], whose values must not be mixed, as [..., 2 H, 2 W]: a and c of pixels a b c."""
    *others, height, width = maps.shape
    _check_threes(height, width)
    outer = maps.reshape(*others, height // 3, 3, width // 3, 3)[..., ::2, :, ::2]
    return outer.reshape(*others, height // 3 * 2, width // 3 * 2)


def _check_threes(height: int, width: int) -> None:
    if height % 3 or width % 3:
        raise ShapeError(f"height and width must be multiples of 3, but are {height} and {width}.")

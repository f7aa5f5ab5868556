"""DeepMind's "CLEVR (with masks)", from its TFRecord file to an HDF5 file of scenes of 128 px: the field's CLEVR6.

In the file (`clevr_with_masks/clevr_with_masks_train.tfrecords`, 10.5 GB) every scene has 240 x 320 px and eleven
entries: the background, then up to ten objects.

    kept       scenes of 3 to 6 objects, sum of visibility[1:]                        (R-MONet, Section 4, as in IODINE)
    cropped    rows 29 to 220 and columns 64 to 255                                   (MONet; IODINE's public code)
    image      192 px to 128 px, bilinear between the centres of pixels, no low-pass, rounded
    mask       192 px to 128 px, the pixel with the nearest centre
    split      the first 48,400 scenes train, the next 1,600 test                     (R-MONet, Section 4)

R-MONet resizes "as MONet", but MONet's code is not public; `docs/notes/published_data.md` compares other resizes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.tfrecord.multi_object import Arrays, RecordLayout, convert_scenes, object_factors
from unscene.errors import DataError

_ENTRIES = 11  # of a scene, background included
_INTEGERS = ("size", "material", "shape", "color")
_REALS = ("x", "y", "z", "rotation")
LAYOUT = RecordLayout(
    "clevr_with_masks_train.tfrecords",
    "clevr",
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
    tfrecords: str | Path, out: str | Path, *options: Any, min_objects: int = 3, max_objects: int = 6, **more: Any
) -> int:
    """Write scenes of the TFRecord file to the new HDF5 file `out`; return their number.

    The new file has `image`, `mask`, `boxes`, and the factors of the ten possible objects, 0 where there is none;
    `pixel_coords` are those of the uncropped image. Its attributes `train_first`, `train_count`, `test_first` and
    `test_count` state which scenes train and test. `min_objects` and `max_objects` do not count the background; other
    arguments are those of `convert_scenes`.

    Raises:
        DataError: see `convert_scenes`; or no scene has so many objects, or a number is out of range.
    """
    if not 0 <= min_objects <= max_objects:
        raise DataError(
            f"min_objects must be from 0 to max_objects, but they are {min_objects} and {max_objects}. "
            f"0 and {_ENTRIES - 1} keep every scene."
        )

    def kept(scene: Arrays) -> Arrays | None:
        return cropped_scene(scene) if min_objects <= scene["visibility"][1:].sum() <= max_objects else None

    def attributes(scenes: int) -> dict[str, int]:
        if not scenes:
            raise DataError(
                f"no scene has {min_objects} to {max_objects} objects. --min-objects 0 --max-objects 10 keeps all."
            )
        return split(scenes)

    settings = {"min_objects": min_objects, "max_objects": max_objects, "size": SIZE, "resized": _RESIZED}
    more |= {"settings": settings, "attributes": attributes}
    return convert_scenes(LAYOUT, kept, tfrecords, out, *options, **more)


def split(count: int) -> dict[str, int]:
    """The first index and the number of the scenes that train and test, of `count`; too few are logged."""
    train = min(count, NUM_TRAIN)
    test = min(count - train, NUM_TEST)
    if test < NUM_TEST:
        _log.warning(
            f"{count:,} scenes are fewer than the {NUM_TRAIN + NUM_TEST:,} of the paper: {train:,} train and {test:,} "
            f"test. A recipe that names more needs other numbers: --test.count {test} and so on."
        )
    return {"train_first": 0, "train_count": train, "test_first": train, "test_count": test}


def cropped_scene(scene: Arrays) -> dict[str, NDArray]:
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
    """
    sums = _blended(_blended(image.astype(np.uint16)).swapaxes(0, 1)).swapaxes(0, 1)  # 16 times the values
    return np.ascontiguousarray(sums + 8 >> 4, np.uint8)


def _blended(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """[3 N, ...] to [2 N, ...], 4 times the values."""
    a, b, c = pixels[0::3], pixels[1::3], pixels[2::3]
    return np.stack([3 * a + b, b + 3 * c], axis=1).reshape(-1, *pixels.shape[1:])


def downscale_nearest(maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return maps [..., 3 H, 3 W], whose values must not be mixed, as [..., 2 H, 2 W]: a and c of pixels a b c."""
    rows, columns = (np.arange(size) % 3 != 1 for size in maps.shape[-2:])
    return maps[..., rows, :][..., columns]

"""DeepMind's Multi-dSprites, "coloured sprites on grayscale", from its TFRecord file to an HDF5 file of scenes.

The file (`multi_dsprites/multi_dsprites_colored_on_grayscale.tfrecords`) gives every scene six entries, the background
first and then up to five sprites. The result has the arrays of `MultiDSprites`, so that one can replace the other; only
`visibility` is 0 or 1 here, as in the file, and not the visible share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.hdf5.writer import write_scenes
from unscene.data.tfrecord.multi_object import RecordLayout, SceneRecords, batches, object_factors

_ENTRIES = 6  # of a scene, background included
LAYOUT = RecordLayout(
    "multi_dsprites_colored_on_grayscale.tfrecords",
    {
        "image": (np.uint8, (64, 64, 3)),
        "mask": (np.uint8, (64, 64, _ENTRIES, 1)),
        **dict.fromkeys(("x", "y", "shape", "visibility", "orientation", "scale"), (np.float32, (_ENTRIES,))),
        "color": (np.float32, (_ENTRIES, 3)),
    },
)


def convert_multi_dsprites(
    tfrecords: str | Path,
    out: str | Path,
    skip_damaged: bool = False,
    progress: bool = True,
    count: int | None = None,
) -> int:
    """Write the scenes of the TFRecord file, gzip or unpacked, to the new HDF5 file `out`; return their number.

    With `skip_damaged`, damaged records are left out where reading can continue; the new file's attribute
    `damaged_left_out` is their number. `count` converts the first so many scenes only.

    Raises:
        DataError: the TFRecord file is missing, damaged or another one, `out` already exists or cannot be written, or
            there are fewer than `count` scenes.
    """
    tfrecords = Path(tfrecords)
    attributes: dict[str, Any] = {"source": f"multi_dsprites, converted from {tfrecords.name}"}
    records = SceneRecords(tfrecords, LAYOUT, skip_damaged, progress and count is None, count)

    def scenes() -> Iterator[dict[str, NDArray]]:
        yield from batches(map(_as_generated, records))
        attributes["damaged_left_out"] = records.damaged

    written = write_scenes(out, scenes(), count, attributes, progress and count is not None)
    records.report_damage(written)
    return written


def _as_generated(scene: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """A record as a scene of `MultiDSprites`: image, label map, and the factors of the sprites alone."""
    factors = object_factors(scene, ("shape", "scale", "orientation", "x", "y", "color"))
    return {
        "image": scene["image"],
        "labels": scene["mask"][..., 0].argmax(axis=2).astype(np.uint8),  # one-hot, 0 or 255; [H, W, 6] to [H, W]
        **factors,
        "shape": np.rint(factors["shape"]).astype(np.uint8),
    }

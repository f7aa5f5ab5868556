"""DeepMind's Multi-dSprites, "coloured sprites on grayscale", from its TFRecord file to an HDF5 file of scenes.

The file (`multi_dsprites/multi_dsprites_colored_on_grayscale.tfrecords`) gives every scene six entries, the background
first and then up to five sprites; `visibility` says which of them exist.
What comes out are the arrays that `multi_dsprites.MultiDSprites` draws, so that one may stand for the other; only
`visibility` is 0 or 1 here, as in the file, and not the share that is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.hdf5.reader import write_scenes
from unscene.data.label_boxes import boxes_of_labels
from unscene.data.tfrecord.multi_object import RecordLayout, SceneRecords, batches
from unscene.errors import DataError

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
    attributes: dict[str, Any] = {"source": f"multi_dsprites, converted from {tfrecords.name}"}
    records = SceneRecords(tfrecords, LAYOUT, skip_damaged, progress and count is None, count=count)

    def scenes() -> Iterator[dict[str, NDArray]]:
        yield from map(_as_generated, batches(records))
        attributes["damaged_left_out"] = records.damaged

    written = write_scenes(out, scenes(), count, attributes, progress and count is not None)
    records.report_damage(written)
    return written


def _as_generated(batch: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The arrays as `multi_dsprites.MultiDSprites` gives them: a label map, boxes, and factors of the sprites alone."""
    labels = batch["mask"][..., 0].argmax(axis=3).astype(np.uint8)  # one-hot, 0 or 255; [B, H, W, 6] to [B, H, W]
    present = batch["visibility"][:, 1:] > 0  # [B, M]
    factors = {name: np.where(present, batch[name][:, 1:], 0) for name in ("scale", "orientation", "x", "y")}
    return {
        "image": batch["image"],
        "labels": labels,
        "boxes": boxes_of_labels(labels, _ENTRIES - 1),
        "shape": np.rint(np.where(present, batch["shape"][:, 1:], 0)).astype(np.uint8),
        **factors,
        "color": np.where(present[..., None], batch["color"][:, 1:], 0),
        "visibility": present.astype(np.float32),
    }

"""DeepMind's Multi-dSprites, "coloured sprites on grayscale", from its TFRecord file to an HDF5 file of scenes.

The file (`multi_dsprites/multi_dsprites_colored_on_grayscale.tfrecords`) gives every scene six entries, the background
first and then up to five sprites. The result has the arrays of `MultiDSprites`, so that one can replace the other; only
`visibility` is 0 or 1 here, as in the file, and not the visible share.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from unscene.data.tfrecord.multi_object import Arrays, RecordLayout, convert_scenes, object_factors

_ENTRIES = 6  # of a scene, background included
LAYOUT = RecordLayout(
    "multi_dsprites_colored_on_grayscale.tfrecords",
    "multi_dsprites",
    {
        "image": (np.uint8, (64, 64, 3)),
        "mask": (np.uint8, (64, 64, _ENTRIES, 1)),
        **dict.fromkeys(("x", "y", "shape", "visibility", "orientation", "scale"), (np.float32, (_ENTRIES,))),
        "color": (np.float32, (_ENTRIES, 3)),
    },
)


def _as_generated(scene: Arrays) -> Arrays:
    """A record as a scene of `MultiDSprites`: image, label map, and the factors of the sprites alone."""
    factors = object_factors(scene, ("shape", "scale", "orientation", "x", "y", "color"))
    return {
        "image": scene["image"],
        "labels": scene["mask"][..., 0].argmax(axis=2).astype(np.uint8),  # one-hot, 0 or 255; [H, W, 6] to [H, W]
        **factors,
        "shape": np.rint(factors["shape"]).astype(np.uint8),
    }


convert_multi_dsprites = partial(convert_scenes, LAYOUT, _as_generated)
"""Write all scenes of the TFRecord file to a new HDF5 file: `convert_scenes`, from its argument `tfrecords` on."""

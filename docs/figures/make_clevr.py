"""Draw docs/images/clevr.png: CLEVR-like scenes, whole and cropped, and their label maps.

    python docs/figures/make_clevr.py [--seed 0] [--min_objects 3] [--max_objects 6] [--out docs/images/clevr.png]

Above, CLEVR's whole picture of 320 x 240; below, the crop of 128 x 128 that the models see, beside its label map.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unscene.data.clevr.objects import COLOURS, MATERIALS, SHAPES, SIZES
from unscene.data.clevr.placement import Choices, placed_scenes
from unscene.data.clevr.rendering import CROP, WHOLE, render

SCENES, SIZE = 3, 128
LABEL_COLOURS = np.array([(0, 0, 0), *COLOURS.values(), (255, 255, 255), (255, 140, 0)], np.uint8)


def picture(seed: int, fewest: int, most: int) -> NDArray[np.uint8]:
    """Return the scenes side by side, [height, width, 3]."""
    choices = Choices(*(np.arange(1, len(kinds) + 1) for kinds in (SHAPES, MATERIALS, COLOURS, SIZES)))
    scenes = placed_scenes(seed, np.arange(SCENES), fewest, most, choices)
    if scenes is None:
        raise SystemExit(f"There is no room for {most} objects. Lower --max_objects.")
    whole, _ = render(scenes, 240, 320, WHOLE)
    crop, labels = render(scenes, SIZE, SIZE, CROP)
    columns = []
    for b in range(SCENES):
        below = np.full((SIZE, 320, 3), 255, np.uint8)
        below[:, 16 : 16 + SIZE], below[:, 320 - 16 - SIZE : -16] = crop[b], LABEL_COLOURS[labels[b]]
        columns.append(np.concatenate([whole[b], np.full((8, 320, 3), 255, np.uint8), below]))
    return np.concatenate(columns, axis=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min_objects", type=int, default=3)
    parser.add_argument("--max_objects", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "images" / "clevr.png")
    arguments = parser.parse_args()
    Image.fromarray(picture(arguments.seed, arguments.min_objects, arguments.max_objects)).save(arguments.out)

"""Draw docs/images/shifts.png: one scene of each generator as it is, and as each of its shifts has it.

    python docs/figures/make_shifts.py [--index 3] [--out docs/images/shifts.png]

A row a generator: above the images, below their label maps. The columns are the defaults, then the shifts in the order
of `shifts`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unscene.data import shifts_of, source_class
from unscene.data.clevr.objects import COLOURS
from unscene.report.slots import bold_font

GENERATORS, SIZE, GAP, TITLE = ("multi_dsprites", "clevr_scenes"), 128, 6, 20
LABEL_COLOURS = np.array([(0, 0, 0), *COLOURS.values(), (255, 255, 255), (255, 140, 0)], np.uint8)


def column(generator: str, index: int, changes: dict[str, Any]) -> NDArray[np.uint8]:
    """One scene and its label map below it, [height, width, 3]."""
    source = source_class(generator)
    drawn = source(source.Settings(size=SIZE, **changes)).batch([index])
    between = np.full((GAP // 2, SIZE, 3), 255, np.uint8)
    return np.concatenate([drawn["image"][0], between, LABEL_COLOURS[drawn["labels"][0]]])


def picture(index: int) -> Image.Image:
    """The grid."""
    shifts = {"none": {}} | shifts_of(GENERATORS[0])
    height = 2 * SIZE + GAP // 2
    across, down = len(shifts) * (SIZE + GAP) - GAP, TITLE + len(GENERATORS) * (height + GAP) - GAP
    grid = Image.new("RGB", (across, down), "white")
    draw = ImageDraw.Draw(grid)
    for place, name in enumerate(shifts):
        left = place * (SIZE + GAP)
        draw.text((left, 2), name, fill="black", font=bold_font(13))
        for row, generator in enumerate(GENERATORS):
            changes = dict(({"none": {}} | shifts_of(generator))[name])
            grid.paste(Image.fromarray(column(generator, index, changes)), (left, TITLE + row * (height + GAP)))
    return grid


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "images" / "shifts.png")
    arguments = parser.parse_args()
    picture(arguments.index).save(arguments.out, optimize=True)

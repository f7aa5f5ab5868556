"""Tetrominoes: three blocks of Tetris on black, as DeepMind's data set shows them.

A sample comes from (seed, index) alone. Size, shading and positions are read off the published preview: a cell has
5 x 5 pixels with a bevel, blocks stand at any pixel, lie within the image, and do not overlap. The published set states
17 blocks, counting orientations, but not which; here all 19 are equally likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from unscene.data.generated_scenes import Seed, check_object_range, uniform_draws
from unscene.data.samples import GeneratedScenes, checked_indices
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import distinct_names, settings_dataclass

VERSION = 1  # of the generator: raised whenever the same seed would give another scene

CELL = 5  # pixels
BLOCKS = {  # rows of cells
    "I": ("####",),
    "O": ("##", "##"),
    "T": ("###", ".#."),
    "S": (".##", "##."),
    "Z": ("##.", ".##"),
    "L": ("###", "#.."),
    "J": ("###", "..#"),
}
COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
_BEVEL = np.full((CELL, CELL), 160)  # brightness within a cell: light from the top right
_BEVEL[0], _BEVEL[:, 0], _BEVEL[:, -1], _BEVEL[-1] = 255, 128, 191, 64
_BEVEL[[0, 0, -1, -1], [0, -1, 0, -1]] = 191, 223, 96, 128  # corners, between their sides
_TRIES = 64  # positions for one block
_DRAWS = 4 * _TRIES  # random numbers of a block


def _orientations() -> list[NDArray[np.bool_]]:
    """The pixels [h, w] of the 19 different turned blocks, in the order of `BLOCKS`."""
    masks: dict[bytes, NDArray[np.bool_]] = {}
    for rows in BLOCKS.values():
        cells = np.array([[cell == "#" for cell in row] for row in rows])
        for turned in (np.rot90(cells, turn) for turn in range(4)):
            masks.setdefault(repr(turned.tolist()).encode(), np.kron(turned, np.ones((CELL, CELL), np.bool_)))
    return list(masks.values())


ORIENTATIONS = _orientations()


@settings_dataclass
class TetrominoesSettings:
    """The kind of scenes. The defaults are the published ones."""

    count: PositiveInt = 60000  # number of scenes
    seed: Seed = 0  # another seed gives another, unrelated data set
    size: Annotated[int, Field(ge=4 * CELL)] = 35  # side of the image in pixels; blocks keep theirs
    min_objects: Annotated[int, Field(ge=0)] = 3  # fewest blocks of a scene
    # most blocks of a scene; also M, the rows of boxes and factors
    max_objects: Annotated[int, Field(ge=1, le=255)] = 3
    # some of red, green, blue, yellow, magenta, cyan, with equal probability
    colours: Annotated[tuple[str, ...], distinct_names(COLOURS)] = tuple(COLOURS)

    def __post_init__(self) -> None:
        check_object_range(self.min_objects, self.max_objects)


class Tetrominoes(GeneratedScenes[TetrominoesSettings]):
    """Scenes of blocks, generated when they are needed."""

    Settings = TetrominoesSettings

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Generate scenes; scene `i` is the same in every batch.

        Returns:
            image: [B, size, size, 3] uint8.
            labels: [B, size, size] uint8 label map, 0 is the background.
            boxes: [B, M, 4] float32 `x1 y1 x2 y2`, end exclusive; a zero row where there is no block.
            shape: [B, M] uint8, 1.. as in `ORIENTATIONS`, 0 where there is no block; other factors are 0 there too.
            x, y: [B, M] float32, the top left pixel.
            color: [B, M, 3] float32, 0 or 1.
            visibility: [B, M] float32, 1 for a block.

        Raises:
            DataError: the blocks find no room.
        """
        indices, settings = checked_indices(indices, len(self)), self.settings
        B, M, size = len(indices), settings.max_objects, settings.size
        draws = uniform_draws(settings.seed, indices, 1 + M * _DRAWS)
        number = settings.min_objects + (draws[:, 0] * (M + 1 - settings.min_objects)).astype(np.int64)
        present = (np.arange(M) < number[:, None]).astype(np.float32)
        sample: dict[str, NDArray] = {
            "image": np.zeros((B, size, size, 3), np.uint8),
            "labels": np.zeros((B, size, size), np.uint8),
            "shape": np.zeros((B, M), np.uint8),
            **{name: np.zeros((B, M), np.float32) for name in ("x", "y")},
            "color": np.zeros((B, M, 3), np.float32),
            "visibility": present,
        }
        palette = np.array([COLOURS[name] for name in settings.colours], np.float32)
        for b, m in np.argwhere(present):
            tries = draws[b, 1 + m * _DRAWS : 1 + (m + 1) * _DRAWS].reshape(_TRIES, 4)
            shape, x, y = _free_position(sample["labels"][b], tries)
            mask = ORIENTATIONS[shape]
            colour = palette[int(tries[0, 3] * len(palette))]
            window = (b, slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1]))
            shaded = np.tile(_BEVEL, [side // CELL for side in mask.shape])[mask]
            sample["labels"][window][mask] = m + 1
            sample["image"][window][mask] = shaded[:, None] * colour
            for name, value in (("shape", shape + 1), ("x", x), ("y", y), ("color", colour)):
                sample[name][b, m] = value
        return sample | {"boxes": boxes_of_labels(sample["labels"], M)}


def _free_position(labels: NDArray[np.uint8], tries: NDArray[np.float64]) -> tuple[int, int, int]:
    """The first block and position that cover no other block: the index of its orientation, x and y."""
    for orientation, across, down, _ in tries:
        shape = int(orientation * len(ORIENTATIONS))
        height, width = ORIENTATIONS[shape].shape
        x, y = int(across * (len(labels) + 1 - width)), int(down * (len(labels) + 1 - height))
        if not labels[y : y + height, x : x + width][ORIENTATIONS[shape]].any():
            return shape, x, y
    raise DataError(f"tetrominoes: {_TRIES} attempts found no room for a block. Lower max_objects, or raise size.")

"""What CLEVR's objects can be: shapes, materials, colours and sizes, in the order of clevr-dataset-gen.

The factors `shape`, `material`, `color` and `size` count them from 1; 0 is no object. Ours, which are unseen in
training, follow those of CLEVR.
"""

from __future__ import annotations

SHAPES = ("cube", "sphere", "cylinder")
ALL_SHAPES = (*SHAPES, "cone")
MATERIALS = ("rubber", "metal")
COLOURS = {  # linear RGB; 255 is 1
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
UNSEEN_COLOURS = {  # ours; each is far from CLEVR's eight
    "orange": (255, 70, 2),
    "pink": (255, 80, 140),
    "white": (240, 240, 240),
    "black": (5, 5, 5),
}
ALL_COLOURS = COLOURS | UNSEEN_COLOURS
SIZES = {"large": 0.7, "small": 0.35}  # radius; half the side of a cube, half the height of a cylinder or cone
PATTERNS = ("checks", "stripes", "dots", "bricks", "marble", "wood", "noise")  # ours, of `textures`

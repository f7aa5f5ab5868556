"""Labels of the first room of Montezuma's Revenge: nine objects, by the screen's colours and regions.

The list is the paper's (Liu et al., 2019, Section 4). The key may be taken and the doors opened. Only agent and skull
move, and no two objects share colour and region, so these two label every pixel; a test compares them with the
console's memory (`objects_in_ram` of tools/record_montezuma.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LADDERS = ("middle ladder", "bottom left ladder", "bottom right ladder")
OBJECTS = ("agent", "skull", "rope", "key", "left door", "right door", *LADDERS)
FIRST_ROW = 47  # above are the score and the lives, in the agent's colours
AGENT = ((228, 111, 111), (200, 72, 72), (210, 182, 86), (240, 128, 128))
SKULL = (236, 236, 236)
YELLOW = (232, 204, 99)  # doors, rope and key
REGIONS = {  # x y w h
    "left door": (20, 54, 4, 38),
    "right door": (136, 54, 4, 38),
    "rope": (110, 96, 4, 39),
    "middle ladder": (72, 93, 16, 42),
    "bottom left ladder": (16, 136, 16, 45),
    "bottom right ladder": (128, 136, 16, 45),
}


def label_frame(screen: NDArray[np.uint8], ram: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return the label map of a screen of the first room: label n is OBJECTS[n - 1], 0 the background.

    A ladder's label fills its box, rungs and gaps, without the objects in front of it.

    Args:
        screen: [210, 160, 3].
        ram: [128], the console's memory; where given, another room than the first has no labels.
    """
    labels = np.zeros(screen.shape[:2], np.uint8)
    if ram is not None and ram[3] != 1:
        return labels
    for name in LADDERS:
        labels[_region(name)] = _label(name)
    yellow = _is(screen, YELLOW)
    for name in ("left door", "right door", "rope"):
        region = _region(name)
        labels[region][yellow[region]] = _label(name)
        yellow[region] = False
    labels[yellow] = _label("key")
    labels[_is(screen, SKULL)] = _label("skull")
    labels[np.any([_is(screen, colour) for colour in AGENT], axis=0)] = _label("agent")
    labels[:FIRST_ROW] = 0
    return labels


def _is(screen: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((screen == np.array(colour, np.uint8)).all(axis=2))


def _label(name: str) -> int:
    return OBJECTS.index(name) + 1


def _region(name: str) -> tuple[slice, slice]:
    x, y, width, height = REGIONS[name]
    return slice(y, y + height), slice(x, x + width)

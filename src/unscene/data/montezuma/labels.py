"""Labels of the first room of Montezuma's Revenge: nine objects, from the screen's colours and the places they have.

The paper's list (Liu et al., 2019, Section 4): the agent, the skull, the rope, the key (which may be taken), two doors
(which may be opened) and three ladders. Nothing moves but agent and skull, and no two share a colour and a place, so
colour and region name every pixel; the console's memory says the same of agent, skull, key and doors
(`objects_in_ram`), and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OBJECTS = (
    "agent",
    "skull",
    "rope",
    "key",
    "left door",
    "right door",
    "middle ladder",
    "bottom left ladder",
    "bottom right ladder",
)
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

    A ladder's label is its whole box, rungs and gaps, less whatever stands before it.

    Args:
        screen: [210, 160, 3].
        ram: [128], the console's memory; where given, another room than the first has no labels.

    Returns:
        [210, 160].
    """
    labels = np.zeros(screen.shape[:2], np.uint8)
    if ram is not None and ram[3] != 1:
        return labels
    for name in ("middle ladder", "bottom left ladder", "bottom right ladder"):
        labels[_region(name)] = _label(name)
    yellow = _is(screen, YELLOW)
    key = yellow.copy()
    for name in ("left door", "right door", "rope"):
        here = _region(name)
        inside = np.zeros_like(yellow)
        inside[here] = yellow[here]
        labels[inside] = _label(name)
        key &= ~inside
    labels[key] = _label("key")
    labels[_is(screen, SKULL)] = _label("skull")
    agent = np.zeros_like(yellow)
    for colour in AGENT:
        agent |= _is(screen, colour)
    labels[agent] = _label("agent")
    labels[:FIRST_ROW] = 0
    return labels


@dataclass(frozen=True)
class RamObjects:
    """What the console's memory says of the first room.

    Attributes:
        in_first_room: whether the agent is there.
        agent: x and y of its middle on the screen, within ten pixels: its shape changes.
        skull: the same; None when there is none.
        left_door: whether it is shut.
        right_door: whether it is shut.
        key: whether it is in its place.
    """

    in_first_room: bool
    agent: tuple[int, int]
    skull: tuple[int, int] | None
    left_door: bool
    right_door: bool
    key: bool


def objects_in_ram(ram: NDArray[np.uint8]) -> RamObjects:
    """Read the console's memory [128]."""
    number = [int(each) for each in ram]
    return RamObjects(
        in_first_room=number[3] == 1,
        agent=(number[42] + 3, 318 - number[43]),
        skull=(number[47] + 35, 413 - number[46]) if number[67] & 2 else None,
        left_door=number[26] != 117,
        right_door=number[28] != 117,
        key=number[49] == 4,
    )


def _is(screen: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((screen == np.array(colour, np.uint8)).all(axis=2))


def _label(name: str) -> int:
    return OBJECTS.index(name) + 1


def _region(name: str) -> tuple[slice, slice]:
    x, y, width, height = REGIONS[name]
    return slice(y, y + height), slice(x, x + width)

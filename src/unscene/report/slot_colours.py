"""One colour a slot, the same in every figure, told apart by the colour-blind too."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Okabe and Ito, Color universal design, 2008 (without black), then five of Paul Tol's "muted" scheme.
SLOT_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (136, 34, 85),
    (153, 153, 51),
    (51, 34, 136),
    (68, 170, 153),
    (204, 102, 119),
)

_BRIGHT = 140  # of 255; black is read on what is brighter, white on what is darker


def slot_colour(label: int) -> Colour:
    """The colour of a label of `Decomposition.labels()`, 1 and above; after twelve they begin again."""
    return SLOT_COLOURS[(label - 1) % len(SLOT_COLOURS)]


def text_colour(ground: Colour) -> Colour:
    """Black or white, whichever is read better on a ground."""
    red, green, blue = ground
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if brightness > _BRIGHT else (255, 255, 255)


def label_map_palette() -> bytes:
    """The 256 colours of a palette image whose pixels are labels: black for 0, then the slots' colours."""
    return bytes(channel for label in range(256) for channel in (slot_colour(label) if label else (0, 0, 0)))

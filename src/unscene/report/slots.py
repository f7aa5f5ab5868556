"""Pictures of slots: one colour for each slot, the same in every figure, and the sample figure of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unscene.scene import Decomposition

Colour = tuple[int, int, int]

# Readable without colour vision: Okabe and Ito, Color universal design, 2008 (without black), then five of Paul Tol's
# "muted" scheme.
SLOT_COLOURS: tuple[Colour, ...] = tuple(
    (code >> 16, code >> 8 & 255, code & 255)
    for code in (
        *(0xE69F00, 0x56B4E9, 0x009E73, 0xF0E442, 0x0072B2, 0xD55E00, 0xCC79A7),
        *(0x882255, 0x999933, 0x332288, 0x44AA99, 0xCC6677),
    )
)
_BRIGHT = 140  # of 255; above it black text is easier to read than white
_PANEL, _LEFT, _TOP = 1.1, 1.0, 0.35  # inches: side of a panel, room for the names of the rows, room for the title


def slot_colour(label: int) -> Colour:
    """The colour of a label of `Decomposition.labels()`, 1 and above. The colours repeat after twelve labels."""
    return SLOT_COLOURS[(label - 1) % len(SLOT_COLOURS)]


def text_colour(ground: Colour) -> Colour:
    """Black or white, whichever is easier to read on a ground."""
    red, green, blue = ground
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0, 0, 0) if brightness > _BRIGHT else (255, 255, 255)


def label_map_palette() -> bytes:
    """The 256 colours of a palette image whose pixels are labels: black for 0, then the colours of the slots."""
    return bytes(channel for label in range(256) for channel in (slot_colour(label) if label else (0, 0, 0)))


def sample_figure(images: Tensor, decomposition: Decomposition, title: str = "") -> Figure:
    """One column for each image [B, 3, H, W] in 0..1. Rows: input with the valid boxes, reconstruction, then for each
    slot its mask and its masked component.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: the colours are needed without it
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    masks = decomposition.masks().float()
    masked = masks * decomposition.components.float()
    rows, names = [images, decomposition.reconstruction()], ["input", "reconstruction"]
    for slot in range(decomposition.num_slots):
        rows += [masks[:, slot].expand(-1, 3, -1, -1), masked[:, slot]]
        names += [f"mask {slot}", f"slot {slot}"]
    grid = torch.stack([row.float().cpu() for row in rows]).clamp(0, 1)  # [R, B, 3, H, W]
    height, width = grid.shape[-2:]
    picture = grid.permute(0, 3, 1, 4, 2).reshape(len(rows) * height, len(images) * width, 3)
    across, down = _LEFT + _PANEL * len(images), _TOP + _PANEL * len(rows) * height / width
    figure = Figure(figsize=(across, down), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((_LEFT / across, 0, 1 - _LEFT / across, 1 - _TOP / down), frame_on=False)
    axes.imshow(picture.numpy(), interpolation="nearest")
    axes.set_yticks([(row + 0.5) * height for row in range(len(rows))], names, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    if decomposition.boxes is not None and decomposition.box_valid is not None:
        for image, slot in decomposition.box_valid.nonzero().tolist():
            x1, y1, x2, y2 = decomposition.boxes[image, slot].tolist()
            colour = [channel / 255 for channel in slot_colour(slot + 1)]
            corner = (x1 + image * width - 0.5, y1 - 0.5)
            axes.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.2))
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / down, va="top")
    return figure

"""The sample figure of a training: input with boxes, reconstruction, every mask, every masked component."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from unscene.report.slot_colours import slot_colour
from unscene.scene import Decomposition

PANEL, LEFT, TOP = 1.1, 1.0, 0.35  # inches: side of a panel, room for the rows' names, room for the title


def sample_figure(images: Tensor, decomposition: Decomposition, title: str = "") -> Figure:
    """One column an image; rows: input with the valid boxes, reconstruction, then mask and masked component a slot.

    Args:
        images: [B, 3, H, W] in 0..1.
        decomposition: of these images.
        title: above the figure.
    """
    masks = decomposition.masks().float()
    masked = masks * decomposition.components.float()
    rows = [images, decomposition.reconstruction()]
    names = ["input", "reconstruction"]
    for slot in range(decomposition.num_slots):
        rows += [masks[:, slot].expand(-1, 3, -1, -1), masked[:, slot]]
        names += [f"mask {slot}", f"slot {slot}"]
    grid = torch.stack([row.float().cpu() for row in rows]).clamp(0, 1)  # [R, B, 3, H, W]
    height, width = grid.shape[-2:]
    picture = grid.permute(0, 3, 1, 4, 2).reshape(len(rows) * height, len(images) * width, 3)
    across, down = LEFT + PANEL * len(images), TOP + PANEL * len(rows) * height / width
    figure = Figure(figsize=(across, down), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((LEFT / across, 0, 1 - LEFT / across, 1 - TOP / down))
    axes.imshow(picture.numpy(), interpolation="nearest")
    axes.set_yticks([(row + 0.5) * height for row in range(len(rows))], names, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for edge in axes.spines.values():
        edge.set_visible(False)
    _draw_boxes(axes, decomposition, width)
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / down, va="top")
    return figure


def _draw_boxes(axes: Axes, decomposition: Decomposition, width: int) -> None:
    """Draw the valid boxes over the inputs, each in the colour of its slot."""
    if decomposition.boxes is None or decomposition.box_valid is None:
        return
    for column, (boxes, valid) in enumerate(zip(decomposition.boxes, decomposition.box_valid, strict=True)):
        for slot, (box, used) in enumerate(zip(boxes.tolist(), valid.tolist(), strict=True)):
            if used:
                corner = (box[0] + column * width - 0.5, box[1] - 0.5)
                colour = [channel / 255 for channel in slot_colour(slot + 1)]
                axes.add_patch(
                    Rectangle(corner, box[2] - box[0], box[3] - box[1], fill=False, edgecolor=colour, linewidth=1.2)
                )

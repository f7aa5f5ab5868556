"""Connected components of many binary images on a GPU: a number of rounds that the images' size alone decides.

A host that asks "has anything changed?" waits for the GPU. So nothing is asked: the rounds are as many as the worst
image of this size can need, and every tensor has a shape that the size decides.

Nodes. The pixels of a 2 x 2 block all touch one another (8-connectivity), so a block is one node: n = ceil(H/2) *
ceil(W/2) of them an image, and at most so many components.

Rounds. Every component so far chooses the smallest of the labels that it touches, its own left out, and merges with it
(Boruvka's step, with labels for weights). Following choices from a to b to c, c <= a, since a is among what b touches;
so every second label along a path of choices never rises, the paths end in cycles of two, and taking the smaller of
those two for a root leaves a forest. Every component that is not whole yet merges with another, so after k rounds it
has at least 2^k nodes, and none is left when 2^k > n / 2: floor(log2 n) rounds, 10 for 64 x 64 pixels. In round k a
tree has at most c = floor(n / 2^k) members, its depth is below c, and ceil(log2(c - 1)) jumps (parent := parent of
parent) make every member point to the root: 54 in all for 64 x 64. With fourteen launches more a round and some sixty
before and after that is about 250; Shiloach and Vishkin's (1982) log_1.5(n) + 2 rounds, 19 here, would be more.

Memory: with P images, a tensor of 9 P n int64 (a node's neighbours), and some ten of P n: for the 640 planes of a batch
of 64 images, five slots and two thresholds, about 100 MB at 64 x 64 and 400 MB at 128 x 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape

OFFSETS = tuple((dy, dx) for dy in range(3) for dx in range(3))  # of the 3 x 3 blocks around a block, from 0


@dataclass(frozen=True)
class ComponentBoxes:
    """The parts of P images, one a place of a table of n = ceil(H/2) * ceil(W/2) places; most places hold none.

    Attributes:
        found: [P, n] bool, whether the place holds a part.
        boxes: [P, n, 4] int64 pixels, end exclusive; zero where there is no part.
        first: [P, n] int64, the part's first pixel, in the order of reading: y * W + x.
    """

    found: Tensor
    boxes: Tensor
    first: Tensor


@torch.no_grad()
def component_boxes(planes: Tensor) -> ComponentBoxes:
    """Return the bounding boxes of the 8-connected parts of many binary images, without a word to the host.

    Args:
        planes: [P, H, W] bool.

    Raises:
        ShapeError: `planes` has other axes.
    """
    size = check_shape(planes, "P H W", "planes")
    a, b, c, d = _corners(planes)
    occupied = (a | b | c | d).flatten(1)  # [P, n]
    root = connected_nodes(_touching(a, b, c, d))  # [P * n]
    extents = _block_extents(a, b, c, d, size["W"])  # [P * n, 4]
    merged = extents.scatter_reduce(0, root.unsqueeze(1).expand_as(extents), extents, "amin")
    found = (root == torch.arange(len(root), device=root.device)).view_as(occupied) & occupied
    first, x1, x2, y2 = merged.view(*found.shape, 4).unbind(-1)
    boxes = torch.stack([x1, first // max(size["W"], 1), -x2, -y2], dim=-1)
    return ComponentBoxes(found, boxes * found.unsqueeze(-1), first)


def connected_nodes(touching: Tensor) -> Tensor:
    """Return the root of each node's component, in the same number of rounds whatever touches what.

    Args:
        touching: [P, h, w, 9] bool, whether the node touches each of the 3 x 3 around it (its own entry is False).
            What touches must be touched, and nothing lies beyond the border.

    Returns:
        [P * h * w] int64 flat indices: nodes of one component, and no others, name the same one of them.
    """
    planes, height, width, _ = touching.shape
    apart = touching.logical_not().unflatten(-1, (3, 3))
    itself = torch.arange(planes * height * width, device=touching.device)
    label = itself
    for jumps in _jumps_a_round(height * width):
        parent = _choices(label.view(planes, height, width), apart, itself)
        back = parent.index_select(0, parent)
        parent = torch.where(back == itself, torch.minimum(parent, itself), parent)  # of two that chose each other
        for _ in range(jumps):
            parent = parent.index_select(0, parent)
        label = parent.index_select(0, label)
    return label


def _jumps_a_round(nodes: int) -> list[int]:
    """For each round the pointer jumps after which every tree is flat; see above for the bounds."""
    rounds = max(nodes.bit_length() - 1, 0)
    return [((nodes >> k) - 2).bit_length() for k in range(rounds)]  # ceil(log2(c - 1)), c >= 2


def _choices(label: Tensor, apart: Tensor, itself: Tensor) -> Tensor:
    """[P * n] the smallest other label that touches each component, at its root; itself where there is none.

    Places that are no root hold themselves.
    """
    around = F.pad(label, (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # [P, h, w, 3, 3], a view
    passed_over = (around == label[..., None, None]).logical_or_(apart)
    nothing = label.numel()
    nearest = around.masked_fill(passed_over, nothing).amin(dim=(-2, -1)).flatten()
    chosen = torch.full_like(nearest, nothing).scatter_reduce_(0, label.flatten(), nearest, "amin")
    return torch.where(chosen == nothing, itself, chosen)


def _corners(planes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels of each 2 x 2 block, by reading order: four times [P, h, w] bool."""
    height, width = planes.shape[1:]
    even = F.pad(planes, (0, width % 2, 0, height % 2))
    return even[:, ::2, ::2], even[:, ::2, 1::2], even[:, 1::2, ::2], even[:, 1::2, 1::2]


def _touching(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[P, h, w, 9] bool: which of the 3 x 3 blocks around it each block touches. Its pixels are a b / c d."""
    top, bottom, left, right = a | b, c | d, a | c, b | d
    height, width = a.shape[1:]
    # what of a block faces each neighbour; the neighbour's own face is the opposite one, 8 - k
    faces = torch.stack([a, top, b, left, torch.zeros_like(a), right, c, bottom, d], dim=-1)
    around = F.pad(faces, (0, 0, 1, 1, 1, 1))
    theirs = [around[:, dy : dy + height, dx : dx + width, 8 - k] for k, (dy, dx) in enumerate(OFFSETS)]
    return faces & torch.stack(theirs, dim=-1)


def _block_extents(a: Tensor, b: Tensor, c: Tensor, d: Tensor, width: int) -> Tensor:
    """[P * n, 4] int64: the first pixel of each block, x1, and -x2, -y2. A part has the least of each."""
    y = 2 * torch.arange(a.shape[1], device=a.device).unsqueeze(1)
    x = 2 * torch.arange(a.shape[2], device=a.device)
    first = torch.where(a | b, y * width + x + (~a).long(), (y + 1) * width + x + (~c).long())
    x1, x2, y2 = x + (~(a | c)).long(), x + 1 + (b | d).long(), y + 1 + (c | d).long()
    return torch.stack([first, x1, -x2, -y2], dim=-1).flatten(0, 2)

"""Bounding boxes of the connected components of many binary images at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from unscene.errors import check_shape
from unscene.ops.dispatch import host_may_read, use_plain

NEIGHBOURS = tuple((dy, dx) for dy in range(3) for dx in range(3))  # of a 2 x 2 block among the blocks, itself at 4
IN_PLANE = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])  # a side or a corner in one image


class ComponentBoxes(NamedTuple):
    """The components of P images, in a table of M entries an image; an entry may be empty."""

    found: Tensor  # [P, M] bool, whether the entry holds a component
    boxes: Tensor  # [P, M, 4] int64 x1 y1 x2 y2 in pixels, end exclusive; zeros in an empty entry
    first: Tensor  # [P, M] int64 y * W + x of the component's first pixel in reading order; arbitrary in an empty entry


@torch.no_grad()
def component_boxes(planes: Tensor) -> ComponentBoxes:
    """Return the bounding box of every 8-connected component, pixels joined by a side or a corner, of [P, H, W] bool.

    `by_propagation` is the definition. All bodies find the same components; M and the order of the entries differ.
    """
    check_shape(planes, "P H W", "planes")
    if use_plain():
        return by_propagation(planes)
    return by_labels(planes) if host_may_read(planes) else by_blocks(planes)


def by_propagation(planes: Tensor) -> ComponentBoxes:
    """Give each pixel the least index that it or a neighbour has, until nothing changes. M is H * W."""
    count, height, width = planes.shape
    index = torch.arange(height * width, device=planes.device).view(1, height, width)
    label = torch.where(planes, index, height * width)
    while True:
        least = -F.max_pool2d(-label.double(), 3, stride=1, padding=1).long() if label.numel() else label
        if torch.equal(spread := torch.where(planes, least, height * width), label):
            break
        label = spread
    y, x = index // max(width, 1), index % max(width, 1)
    corners = torch.stack([x, y, -x - 1, -y - 1], dim=-1).expand(count, -1, -1, -1).flatten(1, 2)
    roots = label.flatten(1).unsqueeze(-1).expand_as(corners)
    least = corners.new_full((count, height * width + 1, 4), height + width)
    least = least.scatter_reduce(1, roots, corners, "amin")[:, :-1]
    found = planes.flatten(1) & (label == index).flatten(1)
    boxes = torch.cat([least[..., :2], -least[..., 2:]], dim=-1) * found.unsqueeze(-1)
    return ComponentBoxes(found, boxes, index.flatten().expand(count, -1))


def by_labels(planes: Tensor) -> ComponentBoxes:
    """SciPy's labels of all images at once: for a CPU. M is what the fullest image needs."""
    height, width = planes.shape[1:]
    labels, count = ndimage.label(planes.numpy(), IN_PLANE)
    pixels = np.flatnonzero(labels)  # in reading order
    component = labels.ravel()[pixels] - 1
    first, last, x1, x2 = np.zeros((4, count), dtype=np.int64)
    first[component[::-1]], last[component] = pixels[::-1], pixels  # of equal indices the last one counts
    x1 += width
    np.minimum.at(x1, component, pixels % width)
    np.maximum.at(x2, component, pixels % width + 1)
    plane, first = np.divmod(first, height * width)
    counts = np.bincount(plane, minlength=len(planes))
    found = np.arange(counts.max(initial=0)) < counts[:, None]
    table = np.zeros((*found.shape, 5), dtype=np.int64)
    table[found] = np.stack([x1, first // width, x2, last // width % height + 1, first], axis=1)
    rows = torch.from_numpy(table)
    return ComponentBoxes(torch.from_numpy(found), rows[..., :4], rows[..., 4])


def by_blocks(planes: Tensor) -> ComponentBoxes:
    """Join 2 x 2 blocks in a number of rounds that the size decides: for a GPU, since the host reads no value.

    The pixels of a block all touch one another, so a block is one node: M = ceil(H/2) * ceil(W/2). A part has the least
    first pixel and the outermost sides of its blocks. About 250 launches for 64 x 64 pixels.
    """
    a, b, c, d = _corners(planes)
    occupied = (a | b | c | d).flatten(1)  # [P, M]
    root = connected_nodes(_touching(a, b, c, d))  # [P * M]
    extents = _block_extents(a, b, c, d, planes.shape[2])  # [P * M, 4]
    merged = extents.scatter_reduce(0, root.unsqueeze(1).expand_as(extents), extents, "amin")
    found = (root == torch.arange(len(root), device=root.device)).view_as(occupied) & occupied
    first, x1, x2, y2 = merged.view(*found.shape, 4).unbind(-1)
    boxes = torch.stack([x1, first // max(planes.shape[2], 1), -x2, -y2], dim=-1)
    return ComponentBoxes(found, boxes * found.unsqueeze(-1), first)


def connected_nodes(touching: Tensor) -> Tensor:
    """Return the root of each node's component, in a number of rounds that does not depend on the data.

    Boruvka's algorithm with labels for weights. In each round every component chooses the smallest label that it
    touches, other than its own, and merges with that component. Along a path of choices every second label never rises,
    so the paths end in cycles of two; the smaller of the two becomes the root, which leaves trees. After k rounds an
    incomplete component has at least 2^k of the n nodes, so floor(log2 n) rounds are enough. A tree then has at most
    c = floor(n / 2^k) members, and ceil(log2(c - 1)) jumps to the parent's parent make each member point to the root.

    `touching` [P, h, w, 9] bool: whether the node touches each of the 3 x 3 around it. It is symmetric and False for
    the node itself and beyond the border. The roots are flat indices [P * h * w], equal for nodes of one component.
    """
    planes, height, width, _ = touching.shape
    apart = touching.logical_not().unflatten(-1, (3, 3))
    itself = torch.arange(planes * height * width, device=touching.device)
    label = itself
    for finished in range(max((height * width).bit_length() - 1, 0)):
        parent = _choices(label.view(planes, height, width), apart, itself)
        back = parent.index_select(0, parent)
        parent = torch.where(back == itself, torch.minimum(parent, itself), parent)  # of two that chose each other
        for _ in range(((height * width >> finished) - 2).bit_length()):
            parent = parent.index_select(0, parent)
        label = parent.index_select(0, label)
    return label


def _choices(label: Tensor, apart: Tensor, itself: Tensor) -> Tensor:
    """[P * n] the smallest other label that touches each component, at its root; other nodes hold themselves."""
    around = F.pad(label, (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # [P, h, w, 3, 3], a view
    ignored = (around == label[..., None, None]).logical_or_(apart)
    nothing = label.numel()
    nearest = around.masked_fill(ignored, nothing).amin(dim=(-2, -1)).flatten()
    chosen = torch.full_like(nearest, nothing).scatter_reduce_(0, label.flatten(), nearest, "amin")
    return torch.where(chosen == nothing, itself, chosen)


def _corners(planes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels of each 2 x 2 block in reading order: four times [P, h, w] bool."""
    height, width = planes.shape[1:]
    even = F.pad(planes, (0, width % 2, 0, height % 2))
    return even[:, ::2, ::2], even[:, ::2, 1::2], even[:, 1::2, ::2], even[:, 1::2, 1::2]


def _touching(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[P, h, w, 9] bool: which of the 3 x 3 blocks around it each block touches. Its pixels are a b / c d."""
    top, bottom, left, right = a | b, c | d, a | c, b | d
    height, width = a.shape[1:]
    # the part of a block that faces each neighbour; the neighbour's own face is the opposite one, 8 - k
    faces = torch.stack([a, top, b, left, torch.zeros_like(a), right, c, bottom, d], dim=-1)
    around = F.pad(faces, (0, 0, 1, 1, 1, 1))
    opposite = [around[:, dy : dy + height, dx : dx + width, 8 - k] for k, (dy, dx) in enumerate(NEIGHBOURS)]
    return faces & torch.stack(opposite, dim=-1)


def _block_extents(a: Tensor, b: Tensor, c: Tensor, d: Tensor, width: int) -> Tensor:
    """[P * M, 4] int64: the first pixel of each block, x1, and -x2, -y2. A component has the least of each."""
    y = 2 * torch.arange(a.shape[1], device=a.device).unsqueeze(1)
    x = 2 * torch.arange(a.shape[2], device=a.device)
    first = torch.where(a | b, y * width + x + (~a).long(), (y + 1) * width + x + (~c).long())
    x1, x2, y2 = x + (~(a | c)).long(), x + 1 + (b | d).long(), y + 1 + (c | d).long()
    return torch.stack([first, x1, -x2, -y2], dim=-1).flatten(0, 2)

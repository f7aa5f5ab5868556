"""Neighbours whose colours are alike are one object: it may have been found in pieces.

Two objects are neighbours where they touch, or lie one pixel apart, along at least 1.5 times the radius of a disc of
the smaller one's area. A half or a quarter of a disc does so with the rest; two discs that touch do not. Their colours
are alike if the energy distance of their pixels' distributions (Szekely and Rizzo, 2013), as a share of its largest
value, is small:

    (2 E|x - y| - E|x - x'| - E|y - y'|) / (2 E|x - y|) < 0.15,    x, x' of one object and y, y' of the other.

So pieces of an object with stripes are alike, and objects of two colours are not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from unscene.inference.found_objects import FoundObjects

_LONG, _ALIKE = 1.5, 0.15
_SAMPLED = 128  # pixels of an object that are compared
_ROWS_AT_ONCE = 256


def join_alike(found: FoundObjects, pixels: NDArray[np.uint8]) -> FoundObjects:
    """Join alike neighbours; the largest piece gives its label, score, latent and place. The label map is changed.

    Args:
        found: the objects.
        pixels: [H, W, 3], the image.
    """
    rows = {label: row for row, label in enumerate(found.slots.tolist())}
    radii = np.sqrt(found.areas / np.pi)
    joined = []
    for (first, second), border in _borders(found.labels).items():
        pair = rows[first], rows[second]
        if border >= _LONG * radii[list(pair)].min() and _alike(*(_sample(found, pixels, row) for row in pair)):
            joined.append(pair)
    if not joined:
        return found
    graph = coo_array((np.ones(len(joined)), np.transpose(joined)), shape=(len(rows), len(rows)))
    group = connected_components(graph, directed=False)[1]  # [N]
    by_area = np.lexsort((-found.areas, group))  # the largest piece of each group first
    kept = np.sort(by_area[np.unique(group[by_area], return_index=True)[1]])
    label_of_group = np.empty(len(kept), found.slots.dtype)
    label_of_group[group[kept]] = found.slots[kept]
    new_labels = np.arange(int(found.labels.max()) + 1, dtype=found.labels.dtype)
    new_labels[found.slots] = label_of_group[group]
    for top in range(0, len(found.labels), _ROWS_AT_ONCE):
        found.labels[top : top + _ROWS_AT_ONCE] = new_labels[found.labels[top : top + _ROWS_AT_ONCE]]
    areas = np.bincount(group, weights=found.areas).astype(found.areas.dtype)
    boxes = np.tile(np.array([np.inf, np.inf, -np.inf, -np.inf], found.boxes.dtype), (len(kept), 1))
    np.minimum.at(boxes[:, :2], group, found.boxes[:, :2])
    np.maximum.at(boxes[:, 2:], group, found.boxes[:, 2:])
    columns = {name: array[kept] for name, array in found.columns().items()}
    return replace(found, **columns | {"areas": areas[group[kept]], "boxes": boxes[group[kept]]})


def _borders(labels: NDArray[np.integer]) -> dict[tuple[int, int], float]:
    """The length in pixels along which two labels are neighbours, for each pair of labels."""
    counts: dict[tuple[int, int], NDArray[np.float64]] = {}
    for axis, top in ((axis, top) for axis in (0, 1) for top in range(0, len(labels), _ROWS_AT_ONCE)):
        stripe = labels[top : top + _ROWS_AT_ONCE + 2 * (axis == 0)]
        one, other = (stripe[:-2], stripe[2:]) if axis == 0 else (stripe[:, :-2], stripe[:, 2:])
        here = (one != other) & (one > 0) & (other > 0)
        pairs = np.sort(np.stack([one[here], other[here]]), axis=0)
        for pair, count in zip(*np.unique(pairs.T, axis=0, return_counts=True), strict=True):
            counts.setdefault((int(pair[0]), int(pair[1])), np.zeros(2))[axis] += count
    # two pixels apart, objects that touch are neighbours twice along each pixel of the border
    return {pair: float(np.hypot(*count)) / 2 for pair, count in counts.items()}


def _sample(found: FoundObjects, pixels: NDArray[np.uint8], row: int) -> NDArray[np.float64]:
    """Colours [P, 3] of an object, of pixels in even steps."""
    x1, y1, x2, y2 = found.boxes[row].astype(int).tolist()
    colours = pixels[y1:y2, x1:x2][found.labels[y1:y2, x1:x2] == found.slots[row]].astype(np.float64)
    return colours[np.linspace(0, len(colours) - 1, min(_SAMPLED, len(colours))).astype(int)]


def _alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    between = 2 * float(cdist(one, other).mean())
    within = float(cdist(one, one).mean() + cdist(other, other).mean())
    return between - within <= _ALIKE * between

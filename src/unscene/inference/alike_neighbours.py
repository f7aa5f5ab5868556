"""Neighbours whose colours are alike are one object: it may have been found in pieces.

Two objects are neighbours if they touch, or lie one pixel apart, along at least 1.5 times the radius of a disc of the
smaller one's area. A half or a quarter of a disc does so with the rest; two discs that touch do not. Their colours are
alike if the energy distance of their pixels' distributions (Szekely and Rizzo, 2013) is small beside its largest value:

    2 E|x - y| - E|x - x'| - E|y - y'| <= 0.15 (2 E|x - y| + 40),    x, x' of one object and y, y' of the other,

with distances in grey levels. So pieces of an object with stripes are alike, and objects of two colours are not. Joins
form chains: objects of one colour that fill an area become one.
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

_LEAST_BORDER = 1.5  # radii
_MAX_ENERGY_DISTANCE = 0.15
_LEAST_DIFFERENCE = 40.0  # so that plain colours which are two grey levels apart are alike
_SAMPLED = 128  # pixels of an object that are compared
_ROWS_AT_ONCE = 256


def join_alike_neighbours(found: FoundObjects, pixels: NDArray[np.uint8]) -> FoundObjects:
    """Join alike neighbours. The largest piece gives its label, score, latent and box of the model.

    Args:
        found: the objects; their label map is changed.
        pixels: [H, W, 3], the image.
    """
    rows = {label: row for row, label in enumerate(found.slots.tolist())}
    radii = np.sqrt(found.areas / np.pi)
    samples: dict[int, NDArray[np.float64]] = {}
    joined = []
    for labels, border in _borders(found.labels).items():
        pair = rows[labels[0]], rows[labels[1]]
        if border < _LEAST_BORDER * radii[list(pair)].min():
            continue
        for row in pair:
            if row not in samples:
                samples[row] = _sample(found, pixels, row)
        if _have_same_colours(samples[pair[0]], samples[pair[1]]):
            joined.append(pair)
    if not joined:
        return found
    graph = coo_array((np.ones(len(joined)), np.transpose(joined)), shape=(len(rows), len(rows)))
    group = connected_components(graph, directed=False)[1]  # [N]
    by_area = np.lexsort((-found.areas, group))  # the largest piece of each group first
    largest = np.sort(by_area[np.unique(group[by_area], return_index=True)[1]])
    label_of_group = np.empty(len(largest), found.slots.dtype)
    label_of_group[group[largest]] = found.slots[largest]
    new_labels = np.arange(int(found.labels.max()) + 1, dtype=found.labels.dtype)
    new_labels[found.slots] = label_of_group[group]
    for top in range(0, len(found.labels), _ROWS_AT_ONCE):
        found.labels[top : top + _ROWS_AT_ONCE] = new_labels[found.labels[top : top + _ROWS_AT_ONCE]]
    areas = np.bincount(group, weights=found.areas).astype(found.areas.dtype)
    boxes = np.tile(np.array([np.inf, np.inf, -np.inf, -np.inf], found.boxes.dtype), (len(largest), 1))
    np.minimum.at(boxes[:, :2], group, found.boxes[:, :2])
    np.maximum.at(boxes[:, 2:], group, found.boxes[:, 2:])
    columns = {name: array[largest] for name, array in found.columns().items()}
    return replace(found, **columns | {"areas": areas[group[largest]], "boxes": boxes[group[largest]]})


def _borders(labels: NDArray[np.integer]) -> dict[tuple[int, int], float]:
    """The length in pixels along which two labels touch, or lie one pixel apart, for each pair of labels."""
    counts: dict[tuple[int, int], NDArray[np.float64]] = {}
    for axis, image in enumerate((labels, labels.T)):
        for top in range(0, len(image), _ROWS_AT_ONCE):
            band = image[top : top + _ROWS_AT_ONCE + 2]
            for gap in (0, 1):
                first, second = band[: len(band) - 1 - gap][:_ROWS_AT_ONCE], band[1 + gap :][:_ROWS_AT_ONCE]
                differs = (first != second) & (first > 0) & (second > 0)
                if gap:  # another label, or the background, lies between them
                    between = band[1:-1][: len(first)]
                    differs &= (between != first) & (between != second)
                pairs = np.sort(np.stack([first[differs], second[differs]]), axis=0)
                for pair, count in zip(*np.unique(pairs.T, axis=0, return_counts=True), strict=True):
                    counts.setdefault((int(pair[0]), int(pair[1])), np.zeros(2))[axis] += count
    return {pair: float(np.hypot(*count)) for pair, count in counts.items()}


def _sample(found: FoundObjects, pixels: NDArray[np.uint8], row: int) -> NDArray[np.float64]:
    """Colours [P, 3] of some of an object's pixels, the same ones each time."""
    x1, y1, x2, y2 = found.boxes[row].astype(int).tolist()
    colours = pixels[y1:y2, x1:x2][found.labels[y1:y2, x1:x2] == found.slots[row]].astype(np.float64)
    return colours[np.random.default_rng(0).permutation(len(colours))[:_SAMPLED]]


def _have_same_colours(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    between = 2 * float(cdist(first, second).mean())
    within = _mean_distance(first) + _mean_distance(second)
    return between - within <= _MAX_ENERGY_DISTANCE * (between + _LEAST_DIFFERENCE)


def _mean_distance(colours: NDArray[np.float64]) -> float:
    """Between two different pixels."""
    return float(cdist(colours, colours).sum()) / max(1, len(colours) * (len(colours) - 1))

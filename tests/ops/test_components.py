from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unscene.errors import ShapeError
from unscene.ops import components
from unscene.ops.components import (
    ComponentBoxes,
    by_blocks,
    by_labels,
    by_propagation,
    component_boxes,
    connected_nodes,
)

BODIES = pytest.mark.parametrize("body", [by_propagation, by_labels, by_blocks])
Parts = list[tuple[int, ...]]


def scipy_parts(planes: NDArray[np.bool_]) -> Parts:
    """(plane, x1, y1, x2, y2) of each part, in the order of the first pixels."""
    found = []
    for index, plane in enumerate(planes):
        labels, count = label(plane, np.ones((3, 3)))
        first = [np.flatnonzero(labels == part + 1)[0] for part in range(count)]
        for _, (rows, columns) in sorted(zip(first, find_objects(labels), strict=True), key=lambda pair: pair[0]):
            found.append((index, columns.start, rows.start, columns.stop, rows.stop))
    return found


def parts_by(body: Callable[[torch.Tensor], ComponentBoxes], planes: NDArray[np.bool_]) -> Parts:
    """The same of a body of ours."""
    parts = body(torch.from_numpy(planes))
    assert not parts.boxes[~parts.found].any()
    plane, entry = parts.found.nonzero(as_tuple=True)
    order = np.lexsort((parts.first[plane, entry], plane))
    return [(int(plane[n]), *parts.boxes[plane[n], entry[n]].tolist()) for n in order]


def spiral(height: int, width: int) -> NDArray[np.bool_]:
    """One line that winds inwards with a gap of one pixel: the longest part there is."""
    plane = np.zeros((height, width), dtype=bool)
    y, x, dy, dx = 0, 0, 0, 1
    plane[0, 0] = True
    while True:
        for _ in range(2):  # straight on, or else once to the right
            ahead, behind = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
            free = 0 <= ahead[0] < height and 0 <= ahead[1] < width
            if free and 0 <= behind[0] < height and 0 <= behind[1] < width:
                free = not plane[behind]
            if free and not plane[ahead]:
                break
            dy, dx = dx, -dy
        else:
            return plane
        y, x = ahead
        plane[ahead] = True


def adversaries(height: int, width: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[:height, :width]
    comb = (x % 2 == 0) | (y == height - 1)
    snake = (y % 2 == 0) | ((x == width - 1) & (y % 4 == 1)) | ((x == 0) & (y % 4 == 3))
    wound = spiral(height, width)
    single = (y == height // 2) & (x == width // 2)
    planes = [
        np.zeros_like(comb),
        np.ones_like(comb),
        single,
        ~single,
        comb,
        comb[::-1],
        (y % 2 == 0) | (x == width - 1),
        snake,
        snake[:, ::-1],
        snake[::-1],
        (y + x) % 2 == 0,  # corners touch: one part
        (y % 2 == 0) & (x % 2 == 0),  # as many parts as there can be
        (y % 2 == 1) & (x % 2 == 1),
        y == x,
        y == width - 1 - x,
        (y + x) % 4 == 0,
        (y - x) % 3 == 0,
        wound,
        wound[::-1],
        wound[:, ::-1],
        ~wound,
        ((x * y) % 7 == 1) | (x % 5 == 0) & (y % 3 > 0),
    ]
    return np.stack(planes)


def test_a_spiral_is_one_long_line():
    wound = spiral(9, 9)
    assert wound.sum() == 49
    assert label(wound)[1] == 1
    assert wound[:3].astype(int).tolist() == [[1] * 9, [0] * 8 + [1], [1] * 7 + [0, 1]]


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (7, 1), (2, 2), (5, 7), (6, 9), (31, 33), (64, 64)])
@BODIES
def test_components_of_adversarial_planes_equal_scipys(body, size):
    planes = adversaries(*size)
    assert parts_by(body, planes) == scipy_parts(planes)


def test_components_of_large_adversarial_planes_equal_scipys():
    planes = adversaries(128, 128)
    assert parts_by(by_labels, planes) == parts_by(by_blocks, planes) == scipy_parts(planes)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 100_000), st.tuples(st.integers(1, 13), st.integers(1, 13)), st.floats(0, 1))
def test_components_of_noise_equal_scipys(seed, size, density):
    planes = np.random.default_rng(seed).random((3, *size)) < density
    found = [parts_by(body, planes) for body in (by_propagation, by_labels, by_blocks)]
    assert found == [scipy_parts(planes)] * 3


@pytest.mark.parametrize("size", [(64, 64), (128, 128)])
@pytest.mark.parametrize("smoothness", [0.0, 0.7, 2.0, 6.0])
def test_components_of_blobs_equal_scipys(smoothness, size):
    field = gaussian_filter(np.random.default_rng(0).normal(size=(2, *size)), (0, smoothness, smoothness))
    planes = np.concatenate([field > np.quantile(field, share) for share in (0.3, 0.6, 0.8)])
    assert parts_by(by_blocks, planes) == scipy_parts(planes)


def random_touching(noise: np.random.Generator, shape: tuple[int, int, int], share: float) -> NDArray[np.bool_]:
    """[P, h, w, 9] symmetric, within the border, for any share of the pairs of neighbours: also crossing diagonals."""
    height, width = shape[1:]
    touching = np.zeros((*shape, 9), dtype=bool)
    for k in range(5, 9):
        dy, dx = k // 3 - 1, k % 3 - 1
        here = (slice(None), slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        there = (slice(None), slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
        edges = noise.random(touching[(*here, k)].shape) < share
        touching[(*here, k)] = edges
        touching[(*there, 8 - k)] = edges
    return touching


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 100_000), st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)), st.floats(0, 0.7))
def test_nodes_of_any_graph_on_the_grid_are_joined_in_the_fixed_rounds(seed, shape, share):
    touching = random_touching(np.random.default_rng(seed), shape, share)
    plane, y, x, k = touching.nonzero()
    start = np.ravel_multi_index((plane, y, x), shape)
    end = np.ravel_multi_index((plane, y + k // 3 - 1, x + k % 3 - 1), shape)
    nodes = int(np.prod(shape))
    expected = connected_components(coo_array((np.ones(len(start)), (start, end)), shape=(nodes, nodes)))[1]
    root = connected_nodes(torch.from_numpy(touching)).numpy()
    assert len({*zip(root.tolist(), expected.tolist(), strict=True)}) == len({*root.tolist()}) == expected.max() + 1


@BODIES
def test_components_by_hand(body):
    """A part that closes only further down is one; a corner joins; ends are exclusive."""
    planes = np.array(
        [[[1, 0, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1]], [[0, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0] * 5]]
    )
    assert parts_by(body, planes.astype(bool)) == [
        (0, 0, 0, 3, 3), (0, 4, 0, 5, 1), (0, 4, 2, 5, 3), (1, 0, 0, 2, 2), (1, 4, 1, 5, 2),
    ]  # fmt: skip
    assert by_labels(torch.from_numpy(planes.astype(bool))).first[1, :2].tolist() == [1, 9]


@BODIES
@pytest.mark.parametrize("shape", [(0, 4, 6), (2, 4, 6)])
def test_no_plane_and_an_empty_plane_have_no_component(body, shape):
    parts = body(torch.zeros(shape, dtype=torch.bool))
    assert parts.boxes.shape[0] == parts.found.shape[0] == shape[0]
    assert not parts.found.any()


@pytest.mark.parametrize(
    ("plain", "may_read", "expected"),
    [("1", True, "plain"), ("1", False, "plain"), ("0", True, "labels"), ("0", False, "blocks")],
)
def test_the_switch_and_the_device_choose_the_body(monkeypatch, plain, may_read, expected):
    monkeypatch.setenv("UNSCENE_PLAIN", plain)
    monkeypatch.setattr(components, "host_may_read", lambda _: may_read)
    for name, word in {"by_propagation": "plain", "by_labels": "labels", "by_blocks": "blocks"}.items():
        monkeypatch.setattr(components, name, lambda _, word=word: word)
    assert component_boxes(torch.zeros(1, 4, 4, dtype=torch.bool)) == expected


def test_other_axes_are_refused():
    with pytest.raises(ShapeError, match="planes"):
        component_boxes(torch.zeros(4, 4, dtype=torch.bool))

"""alike_neighbours: pieces of one object are joined; objects of other colours, or that touch in a point, are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unscene.inference import alike_neighbours
from unscene.inference.alike_neighbours import join_alike_neighbours
from unscene.inference.found_objects import FoundObjects, refine
from unscene.scene import boxes_of_labels


def found_in(labels: np.ndarray) -> FoundObjects:
    """All labels of a map; the score of label n is n / 100."""
    slots = np.unique(labels[labels > 0]).astype(np.int64)
    boxes = boxes_of_labels(labels[None], int(labels.max(initial=0)))[0]
    areas = np.bincount(labels.ravel(), minlength=1)[slots].astype(np.int64)
    scores = (slots / 100).astype(np.float32)
    return FoundObjects(labels.copy(), slots, areas, boxes[slots - 1], scores, None, None, None)


def disc(row: int, column: int, radius: int = 8, size: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def halved(gap: int = 0) -> np.ndarray:
    """A disc: label 1 is its smaller part, left of column 22, label 2 the rest."""
    labels = disc(24, 24).astype(np.uint8) * 2
    labels[:, :22][labels[:, :22] > 0] = 1
    labels[:, 22 : 22 + gap] = 0
    return labels


def picture(labels: np.ndarray, colours: dict[int, int], stripes: float = 0.0) -> np.ndarray:
    image = np.full((*labels.shape, 3), 40.0)
    for label, colour in colours.items():
        image[labels == label] = colour
    image += stripes * np.where(np.arange(48) // 2 % 2, 1, -1)[:, None, None] * (labels > 0)[..., None]
    return (image + np.random.default_rng(0).normal(0, 6, (*labels.shape, 1))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("gap", "stripes"), [(0, 0), (1, 0), (0, 60)])
def test_two_pieces_of_a_disc_are_one_object(gap, stripes):
    labels = halved(gap)
    joined = join_alike_neighbours(found_in(labels), picture(labels, {1: 150, 2: 150}, stripes))
    assert joined.slots.tolist() == [2]  # the larger piece
    assert joined.scores.tolist() == pytest.approx([0.02])
    assert joined.areas.tolist() == [(labels > 0).sum()]
    assert joined.boxes.tolist() == [[16, 16, 33, 33]]
    assert np.array_equal(joined.labels, 2 * (labels > 0))


@pytest.mark.parametrize(("difference", "count"), [(1, 1), (2, 1), (3, 2)])
def test_plain_colours_two_grey_levels_apart_are_alike(difference, count):
    """By hand: 2 sqrt(3) d <= .15 (2 sqrt(3) d + 40) up to d = 2.04."""
    labels = halved()
    image = np.where(labels == 1, 150, 150 + difference)[..., None].repeat(3, axis=-1).astype(np.uint8)
    assert len(join_alike_neighbours(found_in(labels), image).slots) == count


def test_two_colours_are_two_objects():
    labels = halved()
    joined = join_alike_neighbours(found_in(labels), picture(labels, {1: 150, 2: 180}))
    assert joined.slots.tolist() == [1, 2]
    assert np.array_equal(joined.labels, labels)


def test_pieces_two_pixels_apart_are_two_objects():
    labels = halved(gap=2)
    assert len(join_alike_neighbours(found_in(labels), picture(labels, {1: 150, 2: 150})).slots) == 2


def test_two_like_discs_that_touch_are_two_objects():
    labels = np.where(disc(24, 15), 1, np.where(disc(24, 32), 2, 0)).astype(np.uint8)
    assert (labels[24, 23], labels[24, 24]) == (1, 2)
    assert len(join_alike_neighbours(found_in(labels), picture(labels, {1: 150, 2: 150})).slots) == 2


def test_three_pieces_in_a_row_are_one_object_and_another_one_keeps_its_label():
    labels = np.zeros((48, 48), np.int32)
    labels[20:30, 4:10], labels[20:30, 10:15], labels[20:30, 15:19], labels[2:8, 30:40] = 3, 1, 7, 5
    joined = join_alike_neighbours(found_in(labels), picture(labels, {3: 150, 1: 150, 7: 150, 5: 150}))
    assert joined.slots.tolist() == [3, 5]
    assert joined.areas.tolist() == [150, 60]
    assert joined.boxes.tolist() == [[4, 20, 19, 30], [30, 2, 40, 8]]


@pytest.mark.parametrize("labels", [np.zeros((5, 7), np.uint8), np.ones((5, 7), np.uint8), np.ones((1, 1), np.uint8)])
def test_without_neighbours_all_stays(labels):
    found = found_in(labels)
    assert join_alike_neighbours(found, np.zeros((*labels.shape, 3), np.uint8)) is found


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_joined_objects_describe_the_joined_map(seed, rows):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, (4, 5)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
    image = (40 * rng.integers(0, 3, 6))[labels][..., None].repeat(3, axis=-1).astype(np.uint8)
    once = join_alike_neighbours(found_in(labels), image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike_neighbours, "_ROWS_AT_ONCE", rows)
        in_stripes = join_alike_neighbours(found_in(labels), image)
    assert np.array_equal(once.labels, in_stripes.labels)
    expected = found_in(once.labels)
    for name, array in expected.columns().items():
        assert np.array_equal(once.columns()[name], array), name
    assert np.array_equal(once.labels > 0, labels > 0)


def test_pieces_joined_over_a_gap_stay_one_object_and_other_parts_are_split():
    labels = halved(gap=1)
    labels[2:6, 2:6] = labels[40:44, 40:44] = 3
    image = picture(labels, {1: 150, 2: 150, 3: 150})
    found = refine(found_in(labels), image, join_alike=True, split_parts=True)
    assert sorted(found.areas.tolist()) == [16, 16, (halved(gap=1) > 0).sum()]


def test_border_is_counted_once_a_row_with_or_without_a_gap():
    labels = np.zeros((6, 7), np.uint8)
    labels[:5, :3], labels[1:4, 3:], labels[5, :3] = 1, 2, 3
    assert alike_neighbours._borders(labels) == {(1, 2): 3.0, (1, 3): 3.0}
    labels[1:4, 3] = 0
    assert alike_neighbours._borders(labels) == {(1, 2): 3.0, (1, 3): 3.0}
    labels[1:4, 4] = 0
    assert alike_neighbours._borders(labels) == {(1, 3): 3.0}


def test_joined_pieces_are_divided_at_a_waist_only():
    labels = np.where(disc(24, 15), 1, np.where(disc(24, 31), 3, 0)).astype(np.uint8)
    labels[:24][labels[:24] == 1] = 2
    image = picture(labels, {1: 150, 2: 150, 3: 150})
    assert refine(found_in(labels), image, join_alike=True, split_parts="touching").areas.tolist() == pytest.approx(
        [disc(24, 15).sum(), disc(24, 31).sum()], abs=12
    )

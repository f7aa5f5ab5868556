"""indices: batches within the data set, and the ranges that `first` and `count` name, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unscene.data.indices import checked_indices, resolve_range
from unscene.errors import DataError, ShapeError


def test_indices_keep_their_order_and_duplicates():
    found = checked_indices(np.array([4, 0, 4], np.uint8), 5)
    assert (found.dtype, found.tolist()) == (np.int64, [4, 0, 4])
    assert checked_indices([], 5).shape == (0,)


@pytest.mark.parametrize("index", [-1, 5, 2**40])
def test_an_index_outside_is_named(index):
    with pytest.raises(DataError, match=f"sample {index} was asked for, but there are 5: give indices 0 to 4"):
        checked_indices([0, index], 5)


@pytest.mark.parametrize(
    ("indices", "message"), [([0.5], "whole numbers, but are float64"), ([[0]], "axes"), (3, "axes")]
)
def test_what_is_no_row_of_whole_numbers_is_refused(indices, message):
    with pytest.raises(ShapeError, match=message):
        checked_indices(indices, 5)


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [
        (0, 0, range(10)),
        (3, 0, range(3, 10)),
        (3, 2, range(3, 5)),
        (0, -4, range(6)),
        (2, -4, range(2, 6)),
        (-4, 3, range(6, 9)),
        (-4, 0, range(6, 10)),
        (-4, -1, range(6, 9)),
        (9, 1, range(9, 10)),
    ],
)
def test_ranges_of_ten_by_hand(first, count, expected):
    assert resolve_range(first, count, 10, "FILE has 10 scenes") == expected


@pytest.mark.parametrize(("first", "count"), [(0, 11), (10, 0), (10, 1), (-11, 1), (-2, 3), (0, -10), (3, -7), (9, 2)])
def test_too_few_samples_are_named(first, count):
    message = f"FILE has 10 scenes, too few for first {first} and count {count}: lower data.count"
    with pytest.raises(DataError, match=message):
        resolve_range(first, count, 10, "FILE has 10 scenes")


def test_nothing_can_be_taken_from_an_empty_data_set():
    with pytest.raises(DataError, match="too few"):
        resolve_range(0, 0, 0, "FILE has 0 scenes")


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 20))
def test_a_range_is_within_the_data_and_never_empty(first, count, size):
    try:
        found = resolve_range(first, count, size, "data")
    except DataError:
        return
    assert 0 <= found.start < found.stop <= size
    assert found.start == first % size
    assert count <= 0 or len(found) == count

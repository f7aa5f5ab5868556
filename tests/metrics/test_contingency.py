from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.cluster import contingency_matrix

from unscene.errors import DataError, ShapeError, TrainingError
from unscene.metrics.contingency import contingency_table, decomposition_table
from unscene.scene import Decomposition


def test_counts_by_hand():
    true = torch.tensor([[[0, 0], [1, 2]], [[1, 1], [1, 1]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 1]]])
    table = contingency_table(true, predicted)
    assert table.tolist() == [[[1, 1], [0, 1], [0, 1]], [[0, 0], [3, 1], [0, 0]]]
    assert table.dtype == torch.int64


def test_a_given_number_of_columns():
    table = contingency_table(torch.zeros(1, 1, 3, dtype=torch.int64), torch.ones(1, 1, 3, dtype=torch.int64), 4)
    assert table.tolist() == [[[0, 3, 0, 0]]]


def test_pixels_below_0_are_not_counted():
    true = torch.tensor([[[-1, 0, 1, 1]], [[-1, -1, -1, 0]]])
    table = contingency_table(true, torch.tensor([[[1, 1, 1, 0]], [[0, 1, 1, 1]]]))
    assert table.tolist() == [[[0, 1], [1, 1]], [[0, 1], [0, 0]]]
    assert contingency_table(true[1:, :, :3], true[1:, :, :3] + 1).tolist() == [[[0]]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
def test_agrees_with_scikit_learn_image_by_image(seed, batch, num_true, num_predicted):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, num_true, (batch, 5, 4)), rng.integers(0, num_predicted, (batch, 5, 4))
    true[0, 0, 0] = num_true - 1  # all have the same rows
    table = contingency_table(torch.from_numpy(true), torch.from_numpy(predicted), num_predicted)
    for image in range(batch):
        rows, columns = np.unique(true[image]), np.unique(predicted[image])
        expected = np.zeros((num_true, num_predicted))
        expected[np.ix_(rows, columns)] = contingency_matrix(true[image].ravel(), predicted[image].ravel())
        np.testing.assert_array_equal(table[image].numpy(), expected)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_and_unchanged_inputs(kind):
    true, predicted = torch.tensor([[[0, 1, 1]]]).to(kind), torch.tensor([[[1, 0, 1]]]).to(kind)
    kept = true.clone(), predicted.clone()
    assert contingency_table(true, predicted).tolist() == [[[0, 1], [1, 1]]]
    assert torch.equal(true, kept[0])
    assert torch.equal(predicted, kept[1])


def test_many_labels_do_not_overflow_a_small_type():
    true = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    assert contingency_table(true, true)[:, 255, 255].tolist() == [400, 400, 400]


def test_no_image():
    labels = torch.zeros(0, 4, 4, dtype=torch.int64)
    assert contingency_table(labels, labels, num_predicted=5).shape == (0, 1, 5)


def test_impossible_labels_are_errors():
    fine = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(DataError, match=r"true_labels must be integers, but are torch\.float32"):
        contingency_table(fine.float(), fine)
    with pytest.raises(ShapeError, match="predicted_labels"):
        contingency_table(fine, torch.zeros(1, 2, 3, dtype=torch.int64))


def test_background_is_column_0_for_any_index_of_its_slot(hard_decomposition):
    slots = torch.tensor([[[0, 1, 1, 2, 2, 2]]])
    labels = torch.tensor([[[0, 0, 0, 1, 1, 0]]])
    assert decomposition_table(labels, hard_decomposition(slots, 3, -1)).tolist() == [[[1, 1, 2], [2, 0, 0]]]
    assert decomposition_table(labels, hard_decomposition(slots, 3, 1)).tolist() == [[[2, 1, 1], [0, 0, 2]]]
    assert decomposition_table(labels, hard_decomposition(slots, 3, None)).tolist() == [[[1, 2, 1], [0, 0, 2]]]


def test_nan_masks_are_an_error():
    log_masks = torch.zeros(3, 2, 1, 2, 2)
    log_masks[1, 0, 0, 0, 0] = float("nan")
    broken = Decomposition(log_masks, torch.zeros(3, 2, 3, 2, 2))
    with pytest.raises(TrainingError, match="masks of 1 of 3 images"):
        decomposition_table(torch.zeros(3, 2, 2, dtype=torch.int64), broken)

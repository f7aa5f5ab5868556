from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from unscene.errors import ShapeError, TrainingError
from unscene.metrics import new_metric
from unscene.metrics.ari import adjusted_rand_index, ari, ari_fg, ari_fg_objects, deepmind_formula_is_nan
from unscene.metrics.contingency import contingency_table
from unscene.scene import Decomposition, Scene


def scene(labels: torch.Tensor) -> Scene:
    return Scene(torch.zeros(len(labels), 3, *labels.shape[1:]), labels)


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted maps [B, 3, 4] of 1 to 7 labels; the prediction is at times the truth with noise."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 4)), 3, 4)
    true = rng.integers(0, draw(st.integers(1, 7)), shape)
    other = rng.integers(0, draw(st.integers(1, 7)), shape)
    return true, np.where(rng.random(shape) < draw(st.sampled_from([0, 0.2, 1])), other, true)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[9]], 1),  # one object in one slot
        ([[5, 4]], 0),  # one object, split
        ([[5], [4]], 0),  # two objects in one slot
        ([[0, 5], [4, 0]], 1),  # two objects in two slots
        ([[1, 1], [1, 1]], -0.5),  # scikit-learn: adjusted_rand_score([0, 0, 1, 1], [0, 1, 0, 1])
        ([[2, 0], [1, 1]], 0),  # of 12 ordered pairs tp 2, fn 2, fp 4, tn 4: 2 (2*4 - 2*4) = 0
        ([[2, 0, 0], [0, 1, 1]], 4 / 7),  # tp 2, fn 2, fp 0, tn 8: 2*16 / (4*10 + 2*8)
        ([[1, 0], [0, 1]], 1),  # each pixel by itself, in both
        ([[0, 0]], 1),  # no pixel
        ([[1]], 1),
    ],
)
def test_by_hand(table, expected):
    index = adjusted_rand_index(torch.tensor([table]))
    assert index.dtype == torch.float64
    assert index.tolist() == pytest.approx([expected], abs=1e-12)


@given(label_maps())
def test_agrees_with_scikit_learn(maps):
    true, predicted = maps
    index = adjusted_rand_index(contingency_table(torch.from_numpy(true), torch.from_numpy(predicted)))
    expected = [adjusted_rand_score(a.ravel(), b.ravel()) for a, b in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(index.numpy(), expected, rtol=0, atol=1e-9)


def test_agrees_with_scikit_learn_on_a_large_image():
    """640 x 480: a product of two numbers of pairs is over 2^63."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, (1, 480, 640))
    predicted = np.where(rng.random(true.shape) < 0.3, rng.integers(0, 5, true.shape), true)
    index = adjusted_rand_index(contingency_table(torch.from_numpy(true), torch.from_numpy(predicted)))
    assert index.item() == pytest.approx(adjusted_rand_score(true.ravel(), predicted.ravel()), abs=1e-9)


def test_table_must_have_three_axes():
    with pytest.raises(ShapeError, match="table"):
        adjusted_rand_index(torch.zeros(2, 2))


@given(label_maps())
def test_foreground_agrees_with_scikit_learn_on_the_pixels_of_objects(hard_decomposition, maps):
    true, predicted = maps
    metric = ari_fg()
    metric.update(scene(torch.from_numpy(true)), hard_decomposition(torch.from_numpy(predicted), 7, 2))
    expected = [
        adjusted_rand_score(a[a > 0], b[a > 0]) if a.any() else None for a, b in zip(true, predicted, strict=True)
    ]
    assert metric.per_image() == pytest.approx(expected, abs=1e-9)
    counted = [value for value in expected if value is not None]
    result = metric.compute()
    assert result["ari_fg_images"] == len(counted)
    assert result["ari_fg"] == (pytest.approx(np.mean(counted), abs=1e-9) if counted else None)


@given(label_maps())
def test_all_pixels_agree_with_scikit_learn(hard_decomposition, maps):
    true, predicted = maps
    metric = ari()
    metric.update(scene(torch.from_numpy(true)), hard_decomposition(torch.from_numpy(predicted), 7, -1))
    expected = [adjusted_rand_score(a.ravel(), b.ravel()) for a, b in zip(true, predicted, strict=True)]
    assert metric.compute() == {"ari": pytest.approx(np.mean(expected), abs=1e-9)}


def deepmind_formula(table: np.ndarray) -> float:
    """The formula of DeepMind's segmentation_metrics.py, in float64, without its special case."""
    a, b, n = table.sum(0).astype(float), table.sum(1).astype(float), float(table.sum())
    index, index_a, index_b = (np.sum(x * (x - 1)) for x in (table.astype(float), a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = index_a * index_b / np.float64(n * (n - 1))
        return float((index - expected) / ((index_a + index_b) / 2 - expected))


@given(label_maps(), st.booleans())
def test_deepmind_formula_agrees_unless_it_is_nan(maps, all_pixels):
    table = contingency_table(*(torch.from_numpy(labels) for labels in maps))[:, 0 if all_pixels else 1 :]
    formula = np.array([deepmind_formula(one) for one in table.numpy()])
    is_nan = deepmind_formula_is_nan(table).numpy()
    np.testing.assert_array_equal(is_nan, np.isnan(formula))
    np.testing.assert_allclose(adjusted_rand_index(table).numpy()[~is_nan], formula[~is_nan], rtol=0, atol=1e-9)


def test_deepmind_formula_on_two_single_pixels_is_nan():
    assert deepmind_formula_is_nan(torch.tensor([[[1, 0], [0, 1]], [[2, 0], [0, 1]]])).tolist() == [True, False]


def test_counts_of_images(hard_decomposition):
    """One object in one slot (1, NaN for DeepMind), split (0), two objects found (1), no object (not counted, NaN)."""
    labels = torch.tensor([[[0, 1, 1, 1]], [[0, 1, 1, 1]], [[1, 1, 2, 2]], [[0, 0, 0, 0]]])
    slots = torch.tensor([[[2, 0, 0, 0]], [[2, 0, 0, 1]], [[0, 0, 2, 2]], [[0, 1, 2, 2]]])
    metric = ari_fg()
    metric.update(scene(labels), hard_decomposition(slots, 3, -1))
    assert metric.per_image() == [1, 0, 1, None]
    result = metric.compute()
    assert result["ari_fg"] == pytest.approx(2 / 3)
    assert result["ari_fg_several"] == 1
    assert (result["ari_fg_images"], result["ari_fg_deepmind_nan"]) == (3, 2)


def test_images_of_background_alone(hard_decomposition):
    labels = torch.zeros(2, 2, 2, dtype=torch.int64)
    foreground, everything = ari_fg(), ari()
    for metric in (foreground, everything):
        metric.update(scene(labels), hard_decomposition(torch.tensor([[[0, 0], [0, 0]], [[0, 0], [1, 1]]]), 2, 0))
    assert foreground.compute() == {
        "ari_fg": None,
        "ari_fg_several": None,
        "ari_fg_images": 0,
        "ari_fg_deepmind_nan": 2,
    }
    assert everything.per_image() == [1, 0]


def both_means(labels: torch.Tensor, decomposition: Decomposition) -> list[float | None]:
    """`ari_fg` and `ari_fg_objects`."""
    means = []
    for variant in ("ari_fg", "ari_fg_objects"):
        metric = new_metric(variant)
        metric.update(scene(labels), decomposition)
        means.append(metric.compute()[variant])
    return means


def test_soft_masks_lose_only_if_the_background_competes():
    """Two objects; slots 0 and 1 hold .3 of the right pixels each, the background (slot 2) .5 of all."""
    labels = torch.tensor([[[1, 1, 2, 2]]])
    masks = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.2, 0.2, 0.3, 0.3], [0.5, 0.5, 0.5, 0.5]]).view(1, 3, 1, 1, 4)
    for order, background in (([0, 1, 2], -1), ([2, 0, 1], 0), ([0, 2, 1], 1)):
        decomposition = Decomposition(masks[:, order].log(), torch.zeros(1, 3, 3, 1, 4), background)
        assert both_means(labels, decomposition) == [0, 1]


def test_without_a_background_slot_both_are_the_same(hard_decomposition):
    labels = torch.tensor([[[1, 1, 2, 2, 2]]])
    every, objects = both_means(labels, hard_decomposition(torch.tensor([[[0, 0, 1, 1, 0]]]), 2))
    assert 0 < every < 1
    assert objects == every


def test_single_slot_that_is_the_background_leaves_no_slot_for_objects(hard_decomposition):
    decomposition = hard_decomposition(torch.zeros(1, 1, 2), 1, 0)
    assert both_means(torch.tensor([[[0, 1]]]), decomposition) == [1, None]
    metric = ari_fg_objects()
    metric.update(scene(torch.tensor([[[0, 1]]])), decomposition)
    assert metric.per_image() == [None]


def test_nan_masks_are_an_error_in_every_variant(hard_decomposition):
    broken = Decomposition(torch.full((1, 2, 1, 1, 2), float("nan")), torch.zeros(1, 2, 3, 1, 2), 0)
    for variant in ("ari_fg", "ari_fg_objects", "ari"):
        with pytest.raises(TrainingError, match="NaN"):
            new_metric(variant).update(scene(torch.tensor([[[0, 1]]])), broken)


def test_unlabelled_images_have_none_in_order(hard_decomposition):
    decomposition = hard_decomposition(torch.zeros(2, 1, 2), 2, -1)
    metric = ari_fg()
    metric.update(Scene(torch.zeros(2, 3, 1, 2)), decomposition)
    metric.update(scene(torch.ones(2, 1, 2, dtype=torch.int64)), decomposition)
    assert metric.per_image() == [None, None, 1, 1]
    assert metric.compute()["ari_fg_images"] == 2

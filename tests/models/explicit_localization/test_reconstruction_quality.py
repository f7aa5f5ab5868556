from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from unscene.errors import RecipeError, ShapeError
from unscene.models.explicit_localization.reconstruction_quality import best_region, reconstruction_quality


def test_quality_by_hand():
    error = torch.tensor([0.27, 0.0]).view(1, 1, 1, 2)  # .3 in each channel, and none
    remaining = torch.tensor([0.5, 1.0]).view(1, 1, 1, 2)
    quality = reconstruction_quality(error, remaining, variance=0.1)
    assert quality.flatten().tolist() == pytest.approx([math.exp(-0.5 * 0.27 / 0.2), 1.0])


def test_what_is_explained_is_drawn_well_whatever_is_drawn():
    quality = reconstruction_quality(torch.full((2, 1, 4, 4), 3.0), torch.zeros(2, 1, 4, 4), 0.01)
    assert torch.equal(quality, torch.ones(2, 1, 4, 4))


def test_gradient_is_right():
    torch.manual_seed(0)
    error, remaining = (torch.rand(1, 1, 2, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda *parts: reconstruction_quality(*parts, 0.3), (error, remaining))


def test_the_best_region_is_a_square_not_a_pixel():
    quality = torch.zeros(1, 1, 9, 9)
    quality[0, 0, 1, 1] = 2.0  # the best pixel
    quality[0, 0, 5:8, 4:7] = 1.0  # the best square
    assert best_region(quality, 1).tolist() == [[1, 1]]
    assert best_region(quality, 3).tolist() == [[6, 5]]


def test_of_equal_squares_the_first_is_taken_and_the_border_counts_nothing():
    assert best_region(torch.zeros(2, 1, 5, 7), 3).tolist() == [[0, 0], [0, 0]]
    assert best_region(torch.ones(1, 1, 5, 7), 3).tolist() == [[1, 1]]


@given(st.integers(0, 100), st.sampled_from([1, 3, 5]), st.integers(5, 9), st.integers(5, 9))
def test_it_is_scipys_filter(seed, side, height, width):
    quality = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed))
    for image, (row, column) in enumerate(best_region(quality, side).tolist()):
        sums = uniform_filter(quality[image, 0].double().numpy(), side, mode="constant")
        assert sums[row, column] == pytest.approx(sums.max(), rel=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(RecipeError, match="odd"):
        best_region(torch.zeros(1, 1, 4, 4), 4)
    with pytest.raises(ShapeError, match="quality"):
        best_region(torch.zeros(1, 4, 4), 3)
    with pytest.raises(ShapeError, match="remaining"):
        reconstruction_quality(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4), 0.1)

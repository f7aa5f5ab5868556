from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from unscene.models.explicit_localization.window import Window, best_region, butterworth


def test_best_region_is_a_square_not_a_pixel():
    quality = torch.zeros(1, 1, 9, 9)
    quality[0, 0, 1, 1] = 2.0  # the best pixel
    quality[0, 0, 5:8, 4:7] = 1.0  # the best square
    assert best_region(quality, 1).tolist() == [[1, 1]]
    assert best_region(quality, 3).tolist() == [[6, 5]]


def test_first_of_equal_squares_wins_and_pixels_outside_count_0():
    assert best_region(torch.zeros(2, 1, 5, 7), 3).tolist() == [[0, 0], [0, 0]]
    assert best_region(torch.ones(1, 1, 5, 7), 3).tolist() == [[1, 1]]


@given(st.integers(0, 100), st.sampled_from([1, 3, 5]), st.integers(5, 9), st.integers(5, 9))
def test_best_region_agrees_with_scipys_filter(seed, side, height, width):
    quality = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed))
    for image, (row, column) in enumerate(best_region(quality, side).tolist()):
        sums = uniform_filter(quality[image, 0].double().numpy(), side, mode="constant")
        assert sums[row, column] == pytest.approx(sums.max(), rel=1e-5)


def test_butterworth_by_hand():
    distance = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert butterworth(distance, 1, 2.0).tolist() == pytest.approx([1, 1.25**-0.5, 2**-0.5, 5**-0.5])
    assert butterworth(distance, 2, 2.0).tolist()[-1] == pytest.approx(17**-0.5)


def weight_map(window: Window) -> torch.Tensor:
    return window.paste(window.weights)


@given(st.floats(0.5, 12), st.floats(0.3, 6))
def test_window_holds_every_pixel_with_a_product_above_a_half(order, cutoff):
    weights = weight_map(Window.around(torch.tensor([[1, 7], [5, 0]]), (9, 12), order, cutoff))
    assert weights.shape == (2, 1, 9, 12)
    for image, (row, column) in enumerate([(1, 7), (5, 0)]):
        rows = butterworth((torch.arange(9) - row).abs().float(), order, cutoff)
        columns = butterworth((torch.arange(12) - column).abs().float(), order, cutoff)
        assert torch.equal(weights[image, 0] > 0, rows[:, None] * columns[None, :] > 0.5)


def test_steep_window_is_a_square_of_the_cutoff():
    weights = weight_map(Window.around(torch.tensor([[8, 8]]), (17, 17), 50, 4.5))
    assert weights[0, 0].nonzero().aminmax().min == 4
    assert int(weights.sum()) == 9 * 9


def test_crop_and_paste_restore_the_pixels_of_the_window():
    image = torch.rand(1, 1, 6, 8)
    window = Window.around(torch.tensor([[0, 7]]), (6, 8), 4, 3)  # a corner: beyond the border the weights are 0
    pasted = window.paste(window.crop(image)[:, 0] * window.weights)
    assert torch.equal(pasted, image * weight_map(window))
    assert int((pasted > 0).sum()) == int(window.weights.sum())

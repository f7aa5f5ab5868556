from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unscene.models.explicit_localization.butterworth import Window, butterworth


def weights_of(window: Window) -> torch.Tensor:
    return window.paste(window.weights)


def test_by_hand():
    distance = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert butterworth(distance, 1, 2.0).tolist() == pytest.approx([1, 1.25**-0.5, 2**-0.5, 5**-0.5])
    assert butterworth(distance, 2, 2.0).tolist()[-1] == pytest.approx(17**-0.5)


@given(st.floats(0.5, 12), st.floats(0.3, 6))
def test_it_holds_every_pixel_whose_product_of_row_and_column_is_above_a_half(order, cutoff):
    weights = weights_of(Window.around(torch.tensor([[1, 7], [5, 0]]), (9, 12), order, cutoff))
    assert weights.shape == (2, 1, 9, 12)
    for image, (row, column) in enumerate([(1, 7), (5, 0)]):
        rows = butterworth((torch.arange(9) - row).abs().float(), order, cutoff)
        columns = butterworth((torch.arange(12) - column).abs().float(), order, cutoff)
        assert torch.equal(weights[image, 0] > 0, rows[:, None] * columns[None, :] > 0.5)


def test_a_steep_window_is_a_square_of_the_cutoff():
    weights = weights_of(Window.around(torch.tensor([[8, 8]]), (17, 17), 50, 4.5))
    assert weights[0, 0].nonzero().aminmax().min == 4
    assert int(weights.sum()) == 9 * 9


def test_what_is_cropped_is_pasted_where_it_was():
    image = torch.rand(1, 1, 6, 8)
    window = Window.around(torch.tensor([[0, 7]]), (6, 8), 4, 3)  # a corner: beyond the border the weights are 0
    pasted = window.paste(window.crop(image)[:, 0] * window.weights)
    assert torch.equal(pasted, image * weights_of(window))
    assert int((pasted > 0).sum()) == int(window.weights.sum())

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unscene.errors import ShapeError
from unscene.models.explicit_localization.butterworth import butterworth, butterworth_window, window_reach


def test_by_hand():
    distance = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert butterworth(distance, 1, 2.0).tolist() == pytest.approx([1, 1.25**-0.5, 2**-0.5, 5**-0.5])
    assert butterworth(distance, 2, 2.0).tolist()[-1] == pytest.approx(17**-0.5)


def test_a_window_is_the_product_of_its_row_and_column():
    window = butterworth_window(torch.tensor([[1, 2], [0, 0]]), (4, 6), 3, 1.5)
    assert window.shape == (2, 1, 4, 6)
    for image, (row, column) in enumerate([(1, 2), (0, 0)]):
        for y in range(4):
            for x in range(6):
                expected = butterworth(torch.tensor([float(abs(y - row)), float(abs(x - column))]), 3, 1.5).prod()
                assert float(window[image, 0, y, x]) == pytest.approx(float(expected))


@given(st.floats(0.5, 12), st.floats(0.3, 20), st.sampled_from([0.3, 0.5, 0.9]))
def test_the_reach_is_the_last_pixel_above_the_threshold(order, cutoff, threshold):
    reach = window_reach(order, cutoff, threshold)
    here, beyond = butterworth(torch.tensor([float(reach), reach + 1.0]), order, cutoff).tolist()
    assert here > threshold
    assert beyond <= threshold


def test_a_steep_window_is_a_square_of_the_cutoff():
    above = butterworth_window(torch.tensor([[8, 8]]), (17, 17), 50, 4.5) > 0.5
    assert above[0, 0].nonzero().aminmax().min == 4
    assert int(above.sum()) == 9 * 9


def test_other_axes_are_refused():
    with pytest.raises(ShapeError, match="centres"):
        butterworth_window(torch.zeros(2, 3), (4, 4), 1, 1.0)

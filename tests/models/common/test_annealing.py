from __future__ import annotations

import pytest

from unscene.errors import RecipeError
from unscene.models.common.annealing import Annealed


def test_linear_values_by_hand():
    presence = Annealed(4000, 10_000, 0.1, 0.01)
    expected = {0: 0.1, 4000: 0.1, 5000: 0.085, 7000: 0.055, 9999: 0.010015, 10_000: 0.01, 10**7: 0.01}
    assert {step: presence.at(step) for step in expected} == pytest.approx(expected)


def test_value_that_jumps_and_value_that_stays():
    assert [Annealed(5, 5, 1.0, 2.0).at(step) for step in (4, 5, 6)] == [1.0, 2.0, 2.0]
    assert Annealed(0, 0, 1.0, 2.0).at(0) == 2.0
    assert {Annealed(3, 9, -1.0, -1.0).at(step) for step in range(12)} == {-1.0}


def test_the_smallest_and_the_largest_value():
    assert Annealed(0, 5, -1.0, -2.0).values == (-2.0, -1.0)


@pytest.mark.parametrize("steps", [(5, 4), (-1, 4)])
def test_end_step_before_start_step_is_refused(steps):
    with pytest.raises(RecipeError, match=r"^start_step must be (at most end_step, 4, not 5|0 or more, not -1)"):
        Annealed(*steps)

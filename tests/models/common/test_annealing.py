from __future__ import annotations

import pytest

from unscene.errors import RecipeError
from unscene.models.common.annealing import Annealed, WarmupSettings


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


def test_half_way_is_the_mean_and_the_geometric_mean():
    warmup = WarmupSettings(steps=10, sigma_foreground=0.4)
    assert [warmup.linear(step, 1.0, 3.0) for step in (0, 5, 10, 99)] == [1.0, 2.0, 3.0, 3.0]
    assert [warmup.sigma(step, 0.1) for step in (0, 5, 10, 99)] == pytest.approx([0.4, 0.2, 0.1, 0.1])


def test_without_steps_the_end_holds_from_the_first_step_on():
    assert WarmupSettings().linear(0, 1.0, 3.0) == 3.0
    assert WarmupSettings().sigma(0, 0.11) == 0.11


def test_a_negative_length_is_refused():
    with pytest.raises(RecipeError, match="steps"):
        WarmupSettings(steps=-1)

from __future__ import annotations

import pytest

from unscene.errors import RecipeError
from unscene.models.common.warmup import WarmupSettings


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

"""earlier_settings: old recipes get today's names; a value without one keeps its name, which the error then states."""

from __future__ import annotations

import pytest

from unscene.runs.earlier_settings import with_todays_names


@pytest.mark.parametrize(
    ("earlier", "today"),
    [
        ({"foreground_cells": 0}, {"foreground_colours": 0}),
        ({"foreground_cells": 1}, {"foreground_colours": 1}),
        ({"foreground_cells": 4}, {"foreground_cells": 4}),
        ({"empty_slots": "left_out", "num_slots": 5}, {"skip_empty_slots": True, "num_slots": 5}),
        ({"location": {"recentred": 2}}, {"location": {"window_shifts": 2}}),
        ({}, {}),
    ],
)
def test_settings_of_a_model(earlier, today):
    assert with_todays_names({"model": earlier}) == {"model": today}

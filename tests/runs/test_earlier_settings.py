from __future__ import annotations

import pytest

from unscene.errors import RecipeError
from unscene.recipes import recipe_values
from unscene.runs.earlier_settings import with_todays_names
from unscene.runs.recipe import read_recipe

NAME = "rmonet_unet/multi_dsprites_cpu"


@pytest.mark.parametrize(("earlier", "today"), [("left_out", True), ("decoded", False)])
def test_empty_slots_is_skip_empty_slots(earlier, today):
    values = recipe_values(NAME)
    del values["model"]["skip_empty_slots"]
    values["model"] |= {"empty_slots": earlier, "masks": "stick_breaking", "alpha_inside_box": True}
    values["model"]["head"]["image_skip"] = False
    recipe = read_recipe(values, NAME)
    assert recipe.model.skip_empty_slots is today
    assert "empty_slots" not in recipe.values["model"]
    assert values["model"]["empty_slots"] == earlier  # the caller's values stay as they are


def test_settings_of_the_location_mask_have_new_names():
    values = recipe_values("explicit_localization/multi_dsprites_cpu")
    location = values["model"]["location"]
    location |= {"seeds": location.pop("initial_means"), "recentred": location.pop("window_shifts")}
    recipe = read_recipe(values, "a run")
    assert (recipe.model.location.initial_means, recipe.model.location.window_shifts) == ("centre", 1)
    assert not {"seeds", "recentred"} & recipe.values["model"]["location"].keys()


def test_todays_recipes_stay_as_they_are():
    values = recipe_values(NAME)
    assert with_todays_names(recipe_values(NAME)) == values
    assert with_todays_names({"model": None}) == {"model": None}


@pytest.mark.parametrize(
    ("name", "value"), [("empty_slots", "dropped"), ("masks", "softmax"), ("alpha_inside_box", False)]
)
def test_a_value_that_is_gone_is_refused_by_its_name(name, value):
    values = recipe_values(NAME)
    values["model"][name] = value
    with pytest.raises(RecipeError, match=f"model.{name}"):
        read_recipe(values, NAME)

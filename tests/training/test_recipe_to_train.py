"""What the size of the objects decides about a training on crops."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unscene.errors import DataError, RecipeError
from unscene.recipes import load_recipe
from unscene.settings import Word
from unscene.training.recipe_to_train import recipe_to_train

RECIPE = "rmonet_unet/images"


def discs(side: int = 240, diameter: int = 20) -> Image.Image:
    y, x = np.mgrid[:side, :side] % 40 - 20
    return Image.fromarray(np.where(y**2 + x**2 <= diameter**2 / 4, 220, 40).astype(np.uint8))


@pytest.fixture
def folder(tmp_path) -> str:
    discs().save(tmp_path / "discs.png")
    return str(tmp_path)


def chosen(recipe) -> tuple:
    return recipe.data.crop, recipe.data.object_size, recipe.model.num_slots, recipe.model.pseudo_boxes.min_side


def test_one_number_decides(folder, capsys):
    recipe = recipe_to_train(RECIPE, {"data.folder": folder, "data.object_size": Word("22")})
    assert chosen(recipe) == (66, 22.0, 8, 7)  # 3 objects; 1 + .75 * 9; a third of 64 / 3
    assert recipe.model.proposals.max_side == 42.7
    printed = capsys.readouterr().out
    assert "data.crop 66, data.object_size 22.0, model.num_slots 8, model.pseudo_boxes.min_side 7" in printed
    assert "data.size 64 (an object has 21)" in printed
    assert recipe.parts["validation"].crop == 66
    assert len(recipe.source()) == 4000


def test_a_first_look_proposes_the_number_and_says_how_sure_it_is(folder, capsys):
    recipe = recipe_to_train(RECIPE, {"data.folder": folder})
    assert recipe.data.object_size == pytest.approx(20, rel=0.2)
    assert recipe.data.crop == pytest.approx(60, rel=0.2)
    printed = capsys.readouterr().out
    assert "blobs in 1 image" in printed
    assert "(fairly sure)" in printed
    assert "--data.object_size PIXELS" in printed
    same = recipe_to_train(RECIPE, {"data.folder": folder, "data.object_size": Word("auto")})
    assert same.values == recipe.values


def test_what_the_user_gives_stays(folder):
    given = {"data.object_size": 22.0, "data.crop": 44, "model.num_slots": 9}
    assert chosen(recipe_to_train(RECIPE, {"data.folder": folder} | given)) == (44, 22.0, 9, 11)
    recipe = recipe_to_train(RECIPE, {"data.folder": folder, "data.object_size": 22.0, "data.crop": 44})
    assert recipe.model.num_slots == 4


def test_crops_alone_leave_the_recipe_as_it_is(folder):
    changes = {"data.folder": folder, "data.crop": 96}
    assert recipe_to_train(RECIPE, changes).values == load_recipe(RECIPE, changes).values


def test_slots_are_limited_at_both_ends(folder):
    def slots(crop: int) -> int:
        return recipe_to_train(
            RECIPE, {"data.folder": folder, "data.object_size": 10.0, "data.crop": crop}
        ).model.num_slots

    assert (slots(8), slots(200)) == (3, 33)


def test_a_crop_fits_into_the_smallest_image(folder, tmp_path):
    discs(60).save(tmp_path / "small.png")
    assert recipe_to_train(RECIPE, {"data.folder": folder, "data.object_size": 22.0}).data.crop == 60
    discs(30).save(tmp_path / "tiny.png")
    recipe = recipe_to_train(RECIPE, {"data.folder": folder, "data.object_size": 22.0})
    with pytest.raises(DataError, match=r"tiny\.png has 30 x 30 pixels, but crops of 44 x 44"):
        recipe.source()


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_have_no_object(tmp_path, value):
    Image.new("L", (100, 100), value).save(tmp_path / "plain.png")
    with pytest.raises(DataError, match=r"no object of a clear size.*--data\.object_size N"):
        recipe_to_train(RECIPE, {"data.folder": str(tmp_path)})


def test_other_recipes_and_whole_images_stay(folder):
    assert recipe_to_train("monet/clevr", {}).values == load_recipe("monet/clevr").values
    changes = {"data.folder": folder, "data.name": "images"}
    assert recipe_to_train(RECIPE, changes).data_name == "images"


@pytest.mark.parametrize("size", ["0", "small"])
def test_an_impossible_size(folder, size):
    with pytest.raises(RecipeError, match=r"data\.object_size must be"):
        recipe_to_train(RECIPE, {"data.folder": folder, "data.object_size": Word(size)})

"""resuming: whether a folder holds the run that a command would start."""

from __future__ import annotations

import pytest

from unscene.errors import CheckpointError, RecipeError, RunError
from unscene.recipes import load_recipe
from unscene.runs.resuming import RESUMABLE, is_same_run, recipe_to_resume
from unscene.runs.run_folder import RunFolder


def test_folder_without_a_run_holds_none(tmp_path, tiny):
    assert not is_same_run(tiny(), tmp_path / "not there")
    assert not is_same_run(tiny(), tmp_path)


def test_folder_holds_the_run_of_its_recipe(tmp_path, tiny):
    run = RunFolder.create(tmp_path / "run", tiny().text())
    assert is_same_run(tiny(), run.path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("trainer.max_steps", 9), ("trainer.devices", 2), ("schedule.lowest", 0.5), ("optimizer.learning_rate", 0.5)],
)
def test_resumable_settings_may_differ(tmp_path, tiny, setting, value):
    run = RunFolder.create(tmp_path / "run", tiny().text())
    assert setting.startswith(RESUMABLE)
    assert is_same_run(tiny({setting: value}), run.path)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("seed", 1, r"its seed is 0, here it is 1\."),
        ("model.vae.latent_dim", 3, r"its model\.vae\.latent_dim is 16, here it is 3\."),
        ("data.count", 41, r"its data\.count is 40, here it is 41\."),
        ("validation.count", 7, r"its validation\.count is 6, here it is 7\."),
        ("optimizer.name", "adamw", r"its optimizer\.name is adam, here it is adamw\."),
        ("optimizer.name", "rmsprop", r"its optimizer\.name is adam, here it is rmsprop\."),
        (
            "optimizer.param_groups",
            [{"prefix": "head"}],
            r"its optimizer\.param_groups is \[\], here it is \[.*head.*\]\.",
        ),
    ],
)
def test_run_of_another_recipe_is_refused_with_the_setting(tmp_path, tiny, setting, value, message):
    run = RunFolder.create(tmp_path / "run", tiny().text())
    with pytest.raises(RunError, match=message):
        is_same_run(tiny({setting: value}), run.path)
    with pytest.raises(RunError, match="holds another run, which is never overwritten"):
        is_same_run(tiny({setting: value}), run.path)


def test_damaged_recipe_is_named(tmp_path, tiny):
    run = RunFolder.create(tmp_path / "run", "[")
    with pytest.raises(CheckpointError, match=r"recipe\.yaml is damaged"):
        is_same_run(tiny(), run.path)


def test_folder_that_a_run_names_is_followed_only_when_the_command_names_it(tmp_path):
    mine = str(tmp_path / "my photos")
    changes = {"data.folder": mine, "validation.folder": f"{mine}/b"}
    run = RunFolder.create(tmp_path / "run", load_recipe("rmonet_unet/images", changes).text())
    command = rf"unscene train --resume {run.path} --data\.folder '{mine}' --validation\.folder '{mine}/b'$"
    for given in ({}, {"trainer.max_steps": 9}, {"data.folder": mine}):
        with pytest.raises(RecipeError, match=command):
            recipe_to_resume(run.path, given)
    recipe = recipe_to_resume(run.path, {"data.folder": "elsewhere", "validation.folder": mine})
    assert (recipe.data.folder, recipe.parts["validation"].folder) == ("elsewhere", mine)
    assert is_same_run(load_recipe("rmonet_unet/images", changes), run.path), "a command of its own names the folder"


def test_download_that_a_run_names_is_not_started_by_a_resume(tmp_path):
    run = RunFolder.create(tmp_path / "run", load_recipe("redo/flowers", {"data.download": True}).text())
    assert recipe_to_resume(run.path, {}).data.download is False
    assert recipe_to_resume(run.path, {"data.download": True}).data.download is True

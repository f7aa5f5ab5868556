"""What a resumed run may change, and whether a folder holds the run that a command would start."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from unscene.errors import RecipeError, RunError
from unscene.runs.recipe import LOCATIONS, Recipe, as_words, leaves, read_recipe
from unscene.runs.run_folder import RunFolder

# How long and how fast it trains, where the same data is now, and which masks it shows.
RESUMABLE: tuple[str, ...] = ("model.masks", "trainer.", "schedule.", "optimizer.learning_rate", "optimizer.clip_norm")
RESUMABLE += tuple(f"{part}.{name}" for part in ("data", "validation", "test") for name in (*LOCATIONS, "download"))
RESUMABLE += ("data.skip_damaged",)


def recipe_to_resume(path: Path, changes: dict[str, Any]) -> Recipe:
    """The recipe of the run in a folder, changed by dotted name.

    A run may be from somebody else: its recipe cannot choose a file or folder to read, nor start a download.
    RecipeError: a change makes another run of it, or no change names its file or folder.
    """
    refused = next((name for name in changes if not name.startswith(RESUMABLE)), None)
    if refused:
        raise RecipeError(
            f"--{refused}: a resumed run stays in its folder and keeps its model, data and seed. It takes "
            "--model.masks, --trainer.*, --schedule.*, --optimizer.learning_rate, --optimizer.clip_norm, "
            "--data.skip-damaged, and where its data is: "
            f"--data.download, {', '.join(f'--data.{name}' for name in LOCATIONS)}."
        )
    recipe = _recipe_of(path, changes)
    locations = recipe.training_locations()
    if not locations.keys() <= changes.keys():
        raise RecipeError(
            f"its own recipe says where the data of {path} is, and that is not followed unasked. To read it there:  "
            f"unscene train --resume {shlex.quote(str(path))}{as_words(locations)}"
        )
    unasked = {f"{part}.download": False for part in ("data", "validation") if recipe.values[part].get("download")}
    return _recipe_of(path, unasked | changes)


def is_same_run(recipe: Recipe, out: Path) -> bool:
    """Whether a folder holds a run of this recipe; False without a run. RunError: a setting differs that cannot."""
    if not RunFolder(out).recipe.is_file():
        return False
    before, now = settings_of(_recipe_of(out, {})), settings_of(recipe)
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if differing:
        name = differing[0]
        raise RunError(
            f"{out} holds another run, which is never overwritten: its {name} is {before.get(name, 'not set')}, here "
            f"it is {now.get(name, 'not set')}. Name another folder with --out, or leave that setting as it was."
        )
    return True


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The settings that a resumed run keeps, by dotted name: all but those that `RESUMABLE` names."""
    sections = ("seed", "model", "data", "validation", "test", "optimizer")
    kept = leaves("", {section: recipe.values[section] for section in sections})
    return {name: value for name, value in kept.items() if not name.startswith(RESUMABLE)}


def _recipe_of(path: Path, changes: dict[str, Any]) -> Recipe:
    values = RunFolder.open(path).recipe_values()
    return read_recipe(values, str(values.get("name", "")), changes)

"""What a resumed run may change, and whether a folder holds the run that a command would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unscene.errors import RecipeError, RunError
from unscene.runs.recipe import Recipe, leaves, read_recipe
from unscene.runs.run_folder import RunFolder

# How long and how fast it trains, and where the same data is now.
RESUMABLE: tuple[str, ...] = ("trainer.", "schedule.", "optimizer.learning_rate", "optimizer.clip_norm")
RESUMABLE += ("data.path", "data.folder", "data.skip_damaged")


def recipe_to_resume(path: Path, changes: dict[str, Any]) -> Recipe:
    """The recipe of the run in a folder, changed by dotted name. RecipeError: a change makes another run of it."""
    refused = next((name for name in changes if not name.startswith(RESUMABLE)), None)
    if refused:
        raise RecipeError(
            f"--{refused}: a resumed run stays in its folder and keeps its model, data and seed. It takes "
            "--trainer.*, --schedule.*, --optimizer.learning_rate, --optimizer.clip_norm, --data.path, "
            "--data.folder and --data.skip-damaged."
        )
    values = RunFolder.open(path).recipe_values()
    return read_recipe(values, str(values.get("name", "")), changes)


def is_same_run(recipe: Recipe, out: Path) -> bool:
    """Whether a folder holds a run of this recipe; False without a run. RunError: a setting differs that cannot."""
    if not RunFolder(out).recipe.is_file():
        return False
    before, now = settings_of(recipe_to_resume(out, {})), settings_of(recipe)
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

"""The recipes: YAML files, one a row of the papers' tables, found by their path here: `rmonet_unet/multi_dsprites`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unscene.errors import RecipeError, did_you_mean
from unscene.plain_yaml import read_yaml

if TYPE_CHECKING:
    from unscene.runs.recipe import Recipe

FOLDER = Path(__file__).resolve().parent


def recipe_names() -> list[str]:
    """The names of all recipes that come with the package."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a recipe: of the package by its name, or of a file of one's own by its path."""
    own = Path(name)
    if own.suffix in (".yaml", ".yml"):
        if not own.is_file():
            raise RecipeError(f"there is no recipe file {name}. Check its path; `unscene recipes` lists the package's.")
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"recipe file {name} cannot be read as text ({error}).") from error
    if name not in recipe_names():
        raise RecipeError(
            f"there is no recipe '{name}'.{did_you_mean(name, recipe_names())} `unscene recipes` lists them; "
            "a file of your own is named by its path, ending in .yaml."
        )
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def recipe_values(name: str) -> dict[str, Any]:
    """The recipe as plain values, unchecked. RecipeError: no such recipe, or no YAML of settings."""
    values = read_yaml(recipe_text(name), f"recipe '{name}'")
    if not isinstance(values, dict):
        raise RecipeError(f"recipe '{name}' holds no settings.")
    return values


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Return a checked recipe with settings changed by dotted name: `{"model.num_slots": 7}`.

    RecipeError: no such recipe or setting, or an impossible value.
    """
    from unscene.runs.recipe import read_recipe

    return read_recipe(recipe_values(name), name, changes)

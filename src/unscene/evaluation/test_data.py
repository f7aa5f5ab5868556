"""Which scenes a model is scored on: its recipe's test section, changed at will, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unscene.data import Source, source_class
from unscene.data.hdf5.reader import SceneFile, SceneFileSettings
from unscene.settings import plain, typed_settings

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel


def test_source(loaded: LoadedModel, file: Path | None, changes: dict[str, Any]) -> tuple[Source, dict[str, Any]]:
    """Return the source of the scenes, and what it is, ready for JSON.

    Args:
        loaded: the model, whose recipe names the scenes and their size.
        file: of HDF5, to be read instead of what the recipe names.
        changes: settings of the source by name.

    Raises:
        RecipeError: a setting that the source does not have.
        DataError: the data cannot be used.
    """
    if file:
        values = {"path": str(file), "size": loaded.size} | changes
        settings = typed_settings(SceneFileSettings, values, "data", f"recipe '{loaded.name}'")
        source: Source = SceneFile(settings)
        described = {"source": "hdf5"} | plain(settings)
    else:
        settings = loaded.recipe.data_settings("test", **changes)
        source = source_class(loaded.recipe.data_name)(settings)
        described = plain(settings) | {"source": loaded.recipe.data_name}
    return source, described | {"count": len(source)}

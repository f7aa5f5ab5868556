"""Draw a data set into an HDF5 file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data import object_names, source_classes
from unscene.data.hdf5.writer import write_scenes
from unscene.errors import RecipeError, did_you_mean

BATCH = 256  # scenes drawn at once


def generate(source_name: str, path: Path, settings: dict[str, Any], progress: bool = True) -> int:
    """Draw every scene of a source into a new HDF5 file.

    Args:
        source_name: a source that draws, for instance `multi_dsprites`.
        path: the file; never overwritten.
        settings: of the source, by name.
        progress: show a bar.

    Returns:
        Number of scenes.

    Raises:
        RecipeError: a setting that the source does not have, or an impossible value.
        DataError: the file exists or cannot be written.
    """
    source_class, settings_class = source_classes(source_name)
    defaults = {each.name: each.default for each in dataclasses.fields(settings_class)}
    for name, value in settings.items():
        if name not in defaults:
            known = ", ".join(defaults)
            raise RecipeError(f"{source_name} has no setting '{name}'.{did_you_mean(name, defaults)} It has: {known}.")
        if not _alike(value, defaults[name]):
            raise RecipeError(f"{source_name}: {name} cannot be {value!r}. A value it can have is {defaults[name]!r}.")
    chosen = settings_class(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    )
    source = source_class(chosen)

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for first in range(0, len(source), BATCH):
            yield source.batch(np.arange(first, min(first + BATCH, len(source))))

    attributes = {
        "source": source_name,
        "seed": chosen.seed,
        "generator_version": sys.modules[source_class.__module__].VERSION,
        "settings": dataclasses.asdict(chosen),
    }
    if object_names(source):
        attributes["object_names"] = list(object_names(source))
    return write_scenes(path, batches(), len(source), attributes, progress)


def _alike(value: Any, default: Any) -> bool:
    """Whether a value is of the default's kind: a whole number will do for any number, a list for a tuple."""
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_alike(each, default[0]) for each in value)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))

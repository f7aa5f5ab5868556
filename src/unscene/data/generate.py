"""Draw a data set into an HDF5 file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data import object_names, source_class
from unscene.data.hdf5.writer import write_scenes
from unscene.settings import typed_settings

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
    drawing = source_class(source_name)
    known = ", ".join(item.name for item in dataclasses.fields(drawing.Settings))
    chosen = typed_settings(drawing.Settings, settings, "data", source_name, f"It has: {known}.")
    source = drawing(chosen)

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for first in range(0, len(source), BATCH):
            yield source.batch(np.arange(first, min(first + BATCH, len(source))))

    attributes = {
        "source": source_name,
        "seed": chosen.seed,
        "generator_version": sys.modules[drawing.__module__].VERSION,
        "settings": dataclasses.asdict(chosen),
    }
    if object_names(source):
        attributes["object_names"] = list(object_names(source))
    return write_scenes(path, batches(), len(source), attributes, progress)

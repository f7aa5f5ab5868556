"""Writes the scenes of a generator to an HDF5 file."""

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

BATCH = 256  # scenes at once


def generate(source_name: str, path: Path, settings: dict[str, Any], progress: bool = True) -> int:
    """Write every scene of a generator, for instance `multi_dsprites`, to a new HDF5 file; return their number.

    Raises:
        RecipeError: a setting that the source does not have, or an impossible value.
        DataError: the file exists or cannot be written.
    """
    generator = source_class(source_name)
    known = ", ".join(item.name for item in dataclasses.fields(generator.Settings))
    chosen = typed_settings(generator.Settings, settings, "data", source_name, f"It has: {known}.")
    source = generator(chosen)

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for first in range(0, len(source), BATCH):
            yield source.batch(np.arange(first, min(first + BATCH, len(source))))

    attributes = {
        "source": source_name,
        "seed": chosen.seed,
        "generator_version": sys.modules[generator.__module__].VERSION,
        "settings": dataclasses.asdict(chosen),
    }
    if object_names(source):
        attributes["object_names"] = list(object_names(source))
    return write_scenes(path, batches(), len(source), attributes, progress)

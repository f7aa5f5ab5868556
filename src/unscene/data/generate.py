"""Draw a data set into an HDF5 file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data import source_classes
from unscene.data.multi_dsprites import VERSION
from unscene.data.store_writing import write_scenes
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
    known = [each.name for each in dataclasses.fields(settings_class)]
    for name in settings:
        if name not in known:
            raise RecipeError(f"{source_name} has no setting '{name}'.{did_you_mean(name, known)} It has: {', '.join(known)}.")
    chosen = settings_class(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})
    source = source_class(chosen)

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for first in range(0, len(source), BATCH):
            yield source.batch(np.arange(first, min(first + BATCH, len(source))))

    attributes = {
        "source": source_name,
        "seed": chosen.seed,
        "generator_version": VERSION,
        "settings": dataclasses.asdict(chosen),
    }
    return write_scenes(path, batches(), len(source), attributes, progress)

"""Writes the scenes of a generator to an HDF5 file, or to a folder of images with label images."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from unscene.data import Source, clip_length, object_names, source_class
from unscene.data.hdf5.reader import SceneStore
from unscene.data.hdf5.writer import refuse_existing, write_scenes
from unscene.files import output_folder, write_text
from unscene.settings import typed_settings

BATCH = 256  # scenes at once


def generate(source_name: str, path: Path, settings: dict[str, Any], progress: bool = True) -> int:
    """Write every scene of a generator, for instance `multi_dsprites`; return their number.

    `path` is a new HDF5 file; without a suffix a new folder of `images/00000.png` ..., `labels/00000.png` ...
    RecipeError: a setting that the source does not have, or an impossible value. DataError: the file or folder exists,
    or the file cannot be written. RunError: the folder cannot be written.
    """
    chosen, attributes = _described(source_name, settings)
    source = source_class(source_name)(chosen)
    if names := object_names(source):
        attributes["object_names"] = list(names)
    if clip_length(source) > 1:
        attributes["clip_length"] = clip_length(source)
    if not path.suffix:
        return _write_folder(path, source, attributes, progress)

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for first in range(0, len(source), BATCH):
            yield source.batch(np.arange(first, min(first + BATCH, len(source))))

    return write_scenes(path, batches(), len(source), attributes, progress)


def has_scenes_of(path: Path, source_name: str, settings: dict[str, Any]) -> bool:
    """Whether an HDF5 file holds what `generate` would write now.

    RecipeError: as `generate`. DataError: it is no file of scenes.
    """
    _, attributes = _described(source_name, settings)
    found = SceneStore(path).attributes
    return all(found.get(name) == json.loads(json.dumps(value)) for name, value in attributes.items())


def _described(source_name: str, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A generator's settings, checked, and what a file of its scenes says of them."""
    generator = source_class(source_name)
    known = ", ".join(item.name for item in dataclasses.fields(generator.Settings))
    chosen: Any = typed_settings(generator.Settings, settings, "data", source_name, f"It has: {known}.")
    return chosen, {
        "source": source_name,
        "seed": chosen.seed,
        "generator_version": sys.modules[generator.__module__].VERSION,
        "settings": dataclasses.asdict(chosen),
    }


def _write_folder(path: Path, source: Source, attributes: Mapping[str, Any], progress: bool) -> int:
    refuse_existing(path)
    names = [f"{index:05}.png" for index in range(len(source))]
    kinds = {"images": "image", "labels": "labels"} if "labels" in source.batch([0]) else {"images": "image"}
    with output_folder(path, ["scenes.json", *(f"{kind}/{name}" for kind in kinds for name in names)], False) as folder:
        for kind in kinds:
            (folder / kind).mkdir()
        for index, name in enumerate(tqdm(names, unit=" scenes", desc=path.name, disable=not progress)):
            scene = source.batch([index])
            for kind, array in kinds.items():
                Image.fromarray(scene[array][0]).save(folder / kind / name)
        write_text(folder / "scenes.json", json.dumps(attributes, indent=2))
    return len(source)

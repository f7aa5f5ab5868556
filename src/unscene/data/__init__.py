"""The data sources by name. Adding one: its file, its test, and a line here.

A source has `len(source)` and `batch(indices) -> dict` of NumPy arrays: `image` uint8 [B, H, W, 3] and, where the truth
is known, `labels` uint8 [B, H, W] (0 is the background) and `boxes` float32 [B, M, 4]. A source whose labels mean the
same object in every image says so by `object_names`: the name of label `n` is `object_names[n - 1]`. A class of sources
that can draw scenes of other kinds than those of training has `shifts`: by a shift's name the settings that it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unscene.errors import RecipeError, did_you_mean

SOURCES = {
    "multi_dsprites": "unscene.data.multi_dsprites.dataset:MultiDSprites,MultiDSpritesSettings",
    "clevr_scenes": "unscene.data.clevr.dataset:ClevrScenes,ClevrScenesSettings",
    "hdf5": "unscene.data.hdf5.dataset:SceneFile,SceneFileSettings",
    "montezuma": "unscene.data.montezuma.dataset:Montezuma,MontezumaSettings",
    "flowers": "unscene.data.flowers:Flowers,FlowersSettings",
    "coco": "unscene.data.coco.dataset:Coco,CocoSettings",
    "images": "unscene.data.image_folder:ImageFolder,ImageFolderSettings",
}


class Source(Protocol):
    """What every data source offers."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]: ...


def object_names(source: Source) -> tuple[str, ...]:
    """The names of labels 1, 2 ... of a source; empty where a label is no certain object."""
    return tuple(getattr(source, "object_names", ()))


def shifts_of(name: str) -> dict[str, Mapping[str, Any]]:
    """The shifts of a registered source: what each changes of its settings, by the shift's name; empty for none.

    Raises:
        RecipeError: no source of this name.
    """
    return dict(getattr(source_classes(name)[0], "shifts", {}))


def source_classes(name: str) -> tuple[Any, Any]:
    """Return the class of a registered source and the class of its settings.

    Raises:
        RecipeError: no source of this name.
    """
    if name not in SOURCES:
        raise RecipeError(
            f"there is no data source '{name}'.{did_you_mean(name, SOURCES)} "
            f"The sources are: {', '.join(sorted(SOURCES))}."
        )
    module, _, names = SOURCES[name].partition(":")
    source, settings = names.split(",")
    return getattr(import_module(module), source), getattr(import_module(module), settings)

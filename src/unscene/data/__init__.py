"""The data sources by name. Adding one: its file, its test, and a line here.

A source has `len(source)` and `batch(indices) -> dict` of NumPy arrays: `image` uint8 [B, H, W, 3] and, where the truth
is known, `labels` [B, H, W] (0 is the background; uint8, or int16 with -1 for a pixel that does not count) and `boxes`
float32 [B, M, 4]. If its labels mean the same object in every image, it has `object_names`: the name of label `n` is
`object_names[n - 1]`. A class whose scenes can differ from those of training has `shifts`: by a shift's name the
settings that it changes. If its scenes are frames of clips, it has `clip_length`, T: scene `i` is frame `i % T` of clip
`i // T` (`Sequence.from_clips`), and a label means the same object in all frames of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unscene.settings import registered_class

SOURCES = {
    "multi_dsprites": "unscene.data.multi_dsprites:MultiDSprites",
    "clevr_scenes": "unscene.data.clevr.dataset:ClevrScenes",
    "tetrominoes": "unscene.data.tetrominoes:Tetrominoes",
    "many_objects": "unscene.data.many_objects:ManyObjects",
    "objects_room": "unscene.data.objects_room.dataset:ObjectsRoom",
    "hdf5": "unscene.data.hdf5.reader:SceneFile",
    "atari": "unscene.data.atari:Atari",
    "montezuma": "unscene.data.montezuma.dataset:Montezuma",
    "vizdoom": "unscene.data.vizdoom:VizDoom",
    "flowers": "unscene.data.flowers:Flowers",
    "coco": "unscene.data.coco.dataset:Coco",
    "images": "unscene.data.image_folder:ImageFolder",
    "image_crops": "unscene.data.image_crops:ImageCrops",
}


class Source(Protocol):
    """What every data source offers."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]: ...


def object_names(source: Source) -> tuple[str, ...]:
    """The names of labels 1, 2 ... of a source; empty where a label means no particular object."""
    return tuple(getattr(source, "object_names", ()))


def clip_length(source: Source) -> int:
    """The number of frames of each clip of a source; 1 for scenes that do not belong together."""
    return int(getattr(source, "clip_length", 1))


def shifts_of(name: str) -> dict[str, Mapping[str, Any]]:
    """The shifts of a registered source: by a shift's name the settings that it changes; empty for none."""
    return dict(getattr(source_class(name), "shifts", {}))


def source_class(name: str) -> Any:
    """Return the class of a registered source, which has `Settings`; a RecipeError for an unknown name."""
    return registered_class(SOURCES, name, "data source")

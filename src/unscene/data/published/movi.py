"""MOVi-A to MOVi-F as TFDS leaves them on disk: TFRecords of videos, with a PNG for every frame.

The names of features have slashes (`instances/positions`); lists of objects are flat, [M * ...]. `features.json` beside
the files names the features. Source: `challenges/movi` of google-research/kubric. Depth, flow and normals are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unscene.data.published.conversion import (
    ConversionSettings,
    DataSet,
    EntryScene,
    OnDamage,
    OtherDataError,
    RecordSource,
)
from unscene.data.published.deepmind import find_files, record_source
from unscene.data.published.image_folders import label_map, png_pixels, rgb
from unscene.data.tfrecord.example import Feature
from unscene.errors import DataError

ENTRIES = 24  # background and 23 objects: MOVi-D and its successors have up to 20 static and 3 moving ones
_PER_FRAME = {
    "visibility": "visible_pixels",
    "positions": "position",
    "quaternions": "quaternion",
    "velocities": "velocity",
}
_PER_VIDEO = {
    **{"shape_label": "shape", "size_label": "size", "material_label": "material", "color_label": "color_name"},
    **{"color": "color", "scale": "scale", "category": "category", "is_dynamic": "is_dynamic"},
}


def _movi(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> RecordSource:
    files = find_files(paths, "*.tfrecord*", settings.split)
    for folder in dict.fromkeys(file.parent for file in files):
        _check_features(folder / "features.json")
    return record_source(files, _scenes, on_damage)


def _check_features(path: Path) -> None:
    if not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Download it again, or remove it.") from None
    if not isinstance(names, dict) or any(f'"{name}"' not in text for name in ("video", "segmentations", "instances")):
        raise OtherDataError(
            f"{path} is not of MOVi: it names no video, segmentations and instances. Name MOVi's folder."
        )


def _scenes(features: Mapping[str, Feature], where: str) -> list[EntryScene]:
    video, maps = features.get("video"), features.get("segmentations")
    if not (isinstance(video, list) and isinstance(maps, list) and len(video) == len(maps) > 0):
        names = ", ".join(sorted(features)) or "none"
        raise OtherDataError(f"{where} is no video of MOVi: it needs as many PNGs of 'video' as of 'segmentations'. "
                             f"Its features are {names}.")  # fmt: skip
    T = len(video)
    tracks = {new: _instances(features, name, T, where) for name, new in _PER_FRAME.items()}
    constant = {new: _instances(features, name, 1, where) for name, new in _PER_VIDEO.items()}
    scenes = []
    for t in range(T):
        image = rgb(png_pixels(video[t], f"{where}: frame {t} of 'video'"))
        map_name = f"{where}: frame {t} of 'segmentations'"
        labels = label_map(png_pixels(maps[t], map_name), image, ENTRIES, map_name)
        factors = {name: values[:, t] for name, values in tracks.items() if values is not None}
        factors |= {name: values[:, 0] for name, values in constant.items() if values is not None}
        counts = np.bincount(labels.ravel(), minlength=ENTRIES)
        scenes.append(EntryScene(image, labels, counts, factors))
    return scenes


def _instances(features: Mapping[str, Feature], name: str, T: int, where: str) -> NDArray | None:
    """A feature of the M objects as [24, T, ...]; None if it is missing, or no numbers."""
    values, numbers = features.get(f"instances/{name}"), features.get("metadata/num_instances")
    if not (isinstance(values, np.ndarray) and values.dtype != np.uint8 and isinstance(numbers, np.ndarray)):
        return None
    M = int(numbers[0]) if len(numbers) == 1 else 0
    if not 0 < M < ENTRIES or values.size % (M * T) or not values.size:
        found = f"{values.size:,} values of 'instances/{name}' for {M} objects"
        raise OtherDataError(f"{where} has {found}; expected 1 to {ENTRIES - 1} objects, and {T} rows each.")
    rows = values.reshape(M, T, -1)
    entries = np.zeros((ENTRIES, *rows.shape[1:]), np.float32 if rows.dtype == np.float32 else np.int32)
    entries[1 : M + 1] = rows
    return entries[..., 0] if rows.shape[2] == 1 else entries


MOVI = DataSet(_movi)

"""HDF5 files as object-centric-library and EfficientMORL ship them. The pickled files beside them are never opened.

    object-centric-library   image [N, H, W, 3], mask [N, H, W, 1] labels, visibility [N, K] and factors [N, K, ...]
    EfficientMORL            train, val and test, each with imgs [N, H, W, C], masks [N, K, H, W, 1], factors [N, ...]

HDF5 states no checksum unless its writer asked for one: a changed byte of compressed data is found, one of uncompressed
pixels is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from unscene.data.hdf5.opening import check_readable, local_dataset, open_file, reading
from unscene.data.hdf5.reader import SceneStore
from unscene.data.published.conversion import (
    ConversionSettings,
    DataSet,
    EntryScene,
    OnDamage,
    Record,
    Source,
    clevr_crop,
)
from unscene.data.published.deepmind import find_files
from unscene.errors import DataError

_GROUPS = {"train": "train", "validation": "val", "test": "test"}


def _library(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> Source:
    if settings.split != "all":
        raise DataError(
            "object_centric_library names no parts: give data.split all, and hold scenes out with --test.count."
        )
    files = find_files(paths, "*.hdf5")
    stores = [SceneStore(file) for file in files]

    def scene(store: SceneStore, index: int) -> list[EntryScene]:
        sample = {name: values[0] for name, values in store.batch([index]).items() if name != "boxes"}
        image, labels = sample.pop("image"), sample.pop("labels", None)
        if labels is None:
            raise DataError(f"{store.path} has no 'mask'. Name the file NAME-full.hdf5 of the data set.")
        visibility = sample.pop("visibility", np.bincount(labels.ravel())).reshape(-1)
        K = len(visibility)
        if labels.max() >= K:
            raise DataError(
                f"{store.path}: scene {index:,} has label {labels.max()}, but {K} entries. Download it again."
            )
        factors = {name: values for name, values in sample.items() if values.shape[:1] == (K,)}
        other = {name: values for name, values in sample.items() if name not in factors}
        return [EntryScene(image, labels, visibility, factors, other)]

    indices = [(store, index) for store in stores for index in range(len(store))]
    records = (Record(partial(scene, *item), number) for number, item in enumerate(indices, 1))
    return Source(records, len(indices), files, " scenes")


def _efficient_morl(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> Source:
    files, found = find_files(paths, "*.h5"), []
    for path in files:
        with open_file(path) as file, reading(path):
            for part, name in _GROUPS.items():
                if name in file and settings.split in ("all", part):
                    arrays = _arrays(file, name)
                    found.append((path, name, len(arrays["imgs"])))
    if not found:
        raise DataError(
            f"{files[0]} has no group train, val or test of split {settings.split}. Check which file it is."
        )

    def scene(path: Path, part: str, index: int) -> list[EntryScene]:
        with open_file(path) as file, reading(path, f": sample {index:,} of '{part}'"):
            image, masks, *factors = (dataset[index] for dataset in _arrays(file, part).values())
        image = np.broadcast_to(np.rint(image).clip(0, 255).astype(np.uint8), (*image.shape[:2], 3))
        masks = masks[..., 0]
        given = {"factors": np.asarray(factors[0])} if factors else {}
        per_entry = bool(given) and given["factors"].shape[:1] == masks.shape[:1]
        visibility, labels = masks.any(axis=(1, 2)), masks.argmax(axis=0).astype(np.uint8)
        return [EntryScene(image, labels, visibility, *((given, {}) if per_entry else ({}, given)))]

    count = sum(size for *_, size in found)
    samples = ((path, part, index) for path, part, size in found for index in range(size))
    records = (Record(partial(scene, *sample), number) for number, sample in enumerate(samples, 1))
    return Source(records, count, files, " scenes")


def _arrays(file: h5py.File, part: str) -> dict[str, Any]:
    """The arrays of a part, checked; `factors` only where it is one array of numbers."""
    arrays = {}
    if local_dataset(file, part) is None:
        arrays = {
            name: local_dataset(file, f"{part}/{name}") for name in ("imgs", "masks", "factors") if name in file[part]
        }
    images, masks, factors = (arrays.get(name) for name in ("imgs", "masks", "factors"))
    if images is None or masks is None or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise DataError(
            f"{file.filename}: '{part}' needs imgs [N, H, W, C] and masks [N, K, H, W, 1]. Download it again."
        )
    N, H, W, _ = images.shape
    if masks.shape != (N, K := masks.shape[1], H, W, 1) or not 1 <= K <= 256:
        raise DataError(f"{file.filename}: '{part}/masks' must be [{N}, K, {H}, {W}, 1], but is {list(masks.shape)}.")
    if factors is None or factors.dtype.kind not in "biuf" or factors.shape[:1] != (N,):
        arrays.pop("factors", None)
    for dataset in arrays.values():
        check_readable(dataset)
    return arrays


OBJECT_CENTRIC_LIBRARY = DataSet(_library)
EFFICIENT_MORL = DataSet(_efficient_morl, crop=clevr_crop)

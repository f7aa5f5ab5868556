"""HDF5 files as object-centric-library and EfficientMORL ship them. The pickled files beside them are never opened.

    object-centric-library   image [N, H, W, 3], mask [N, H, W, 1] labels, visibility [N, K] and factors [N, K, ...]
    EfficientMORL            train, val and test, each with imgs [N, H, W, C], masks [N, K, H, W, 1], factors [N, ...]

HDF5 states no checksum unless its writer asked for one: a changed byte of compressed data is found, one of uncompressed
pixels is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from unscene.data.hdf5.opening import check_readable, local_dataset, open_file, read_rows, reading
from unscene.data.hdf5.reader import SceneStore
from unscene.data.published.conversion import (
    ConversionSettings,
    DataSet,
    EntryScene,
    OnDamage,
    RecordSource,
    clevr_crop,
)
from unscene.data.published.deepmind import find_files
from unscene.errors import DataError

_GROUPS = {"train": "train", "validation": "val", "test": "test"}


def _library(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> RecordSource:
    if settings.split != "all":
        raise DataError(
            "object_centric_library names no parts: give data.split all, and hold scenes out with --test.count."
        )
    files = find_files(paths, "*.hdf5")
    stores = [SceneStore(file) for file in files]

    def scene(store: SceneStore, index: int) -> EntryScene:
        sample = {name: values[0] for name, values in store.batch([index]).items() if name != "boxes"}
        image, labels = sample.pop("image"), sample.pop("labels", None)
        if labels is None:
            raise DataError(f"{store.path} has no 'mask'. Name the file NAME-full.hdf5 of the data set.")
        visibility = sample.pop("visibility", np.bincount(labels.ravel())).reshape(-1)
        K = len(visibility)
        if labels.max() >= K:
            raise DataError(
                f"{store.path}: scene {index:,} has label {labels.max()} of {K} entries. Download it again."
            )
        factors = {name: values for name, values in sample.items() if values.shape[:1] == (K,)}
        other = {name: values for name, values in sample.items() if name not in factors}
        return EntryScene(image, labels, visibility, factors, other)

    locations = ((store, index) for store in stores for index in range(len(store)))
    return RecordSource.of_scenes(scene, locations, sum(map(len, stores)), files)


def _efficient_morl(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> RecordSource:
    files = find_files(paths, "*.h5")
    parts: list[tuple[Path, str, list[str], int]] = []
    for path in files:
        with open_file(path) as file, reading(path):
            if others := sorted(set(file) - set(_GROUPS.values())):
                raise DataError(
                    f"{path} has {others}, expected only train, val and test: it is damaged, or another file."
                )
            for part, group in _GROUPS.items():
                if group in file and settings.split in ("all", part):
                    parts.append((path, group, *_arrays(file, group)))
    if not parts:
        raise DataError(
            f"{files[0]} has no group train, val or test of split {settings.split}. Check which file it is."
        )

    def scene(path: Path, group: str, names: list[str], index: int) -> EntryScene:
        with open_file(path) as file, reading(path, f": sample {index:,} of '{group}'"):
            image, masks, *rest = (read_rows(file[f"{group}/{name}"], index, index + 1)[0] for name in names)
        is_share = image.dtype.kind == "f" and 0 < image.max() <= 1
        if is_share or not 0 <= image.min() <= image.max() <= 255:
            values = f"values from {image.min():g} to {image.max():g}, expected 0 to 255"
            raise DataError(f"{path}: sample {index:,} of '{group}' has {values}. Check which file it is.")
        image = np.broadcast_to(np.rint(image).astype(np.uint8), (*image.shape[:2], 3))
        masks, given = masks[..., 0], dict(zip(("factors",), map(np.asarray, rest), strict=False))
        of_entries = bool(given) and given["factors"].shape[:1] == masks.shape[:1]
        visibility, labels = masks.any(axis=(1, 2)), masks.argmax(axis=0).astype(np.uint8)
        return EntryScene(image, labels, visibility, *((given, {}) if of_entries else ({}, given)))

    locations = ((path, group, names, index) for path, group, names, size in parts for index in range(size))
    return RecordSource.of_scenes(scene, locations, sum(size for *_, size in parts), files)


def _arrays(file: h5py.File, group: str) -> tuple[list[str], int]:
    """The names of a group's checked arrays, and their number of scenes; `factors` only as one array of numbers."""
    names = ("imgs", "masks", "factors") if local_dataset(file, group) is None else ()
    arrays: dict[str, Any] = {name: local_dataset(file, f"{group}/{name}") for name in names if name in file[group]}
    images, masks, factors = (arrays.get(name) for name in ("imgs", "masks", "factors"))
    if (
        images is None
        or masks is None
        or {images.dtype.kind, masks.dtype.kind} - {*"iuf"}
        or images.ndim != 4
        or images.shape[3] not in (1, 3)
        or 0 in images.shape
    ):
        raise DataError(
            f"{file.filename}: '{group}' needs the numbers imgs [N, H, W, C] and masks [N, K, H, W, 1]. Download it "
            "again."
        )
    N, H, W, _ = images.shape
    if masks.ndim != 5 or masks.shape != (N, K := masks.shape[1], H, W, 1) or not 1 <= K <= 256:
        raise DataError(f"{file.filename}: '{group}/masks' must be [{N}, K, {H}, {W}, 1], but is {list(masks.shape)}.")
    if factors is None or factors.dtype.kind not in "biuf" or factors.shape[:1] != (N,):
        arrays.pop("factors", None)
    for dataset in arrays.values():
        check_readable(dataset)
    return list(arrays), N


OBJECT_CENTRIC_LIBRARY = DataSet(_library)
EFFICIENT_MORL = DataSet(_efficient_morl, crop=clevr_crop)

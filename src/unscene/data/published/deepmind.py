"""DeepMind's Multi-Object Datasets: TFRecord files in the bucket `multi-object-datasets`, read without TensorFlow.

Every scene has entries, the background first and then the objects, with a mask each, 0 or 255; `visibility` states
which of them exist. Sources: the readers of google-deepmind/multi_object_datasets, which state shape and type of every
feature. Bytes are lists of one-byte strings, or in CATER one string.

CLEVR becomes the field's CLEVR6:

    kept       scenes of 3 to 6 objects, sum of visibility[1:]                        (R-MONet, Section 4, as in IODINE)
    cropped    rows 29 to 220 and columns 64 to 255                                   (MONet; IODINE's public code)
    image      192 px to 128 px, bilinear between the centres of pixels, no low-pass, rounded
    mask       192 px to 128 px, the pixel with the nearest centre
    split      the first 48,400 scenes train, the next 1,600 test                     (R-MONet, Section 4)

R-MONet resizes "as MONet", but MONet's code is not public; `docs/notes/published_data.md` compares other resizes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unscene.data.published.conversion import (
    Arrays,
    ConversionSettings,
    DataSet,
    EntryScene,
    OnDamage,
    OtherDataError,
    Record,
    RecordSource,
    clevr_crop,
)
from unscene.data.tfrecord import records
from unscene.data.tfrecord.example import Feature, parse_example
from unscene.errors import DataError

Shapes = Mapping[str, tuple[type[np.generic], tuple[int, ...]]]  # type and shape of every feature, by name
ToScenes = Callable[[Mapping[str, Feature], str], Sequence[EntryScene]]

NUM_TRAIN, NUM_TEST = 48_400, 1_600  # of CLEVR6

_log = logging.getLogger(__name__)


def find_files(paths: Sequence[Path], pattern: str, split: str = "all") -> list[Path]:
    """Return the files, and those of the pattern below the folders, of a split by their names, in the splits' order.

    DataError: a path does not exist, or there is no such file.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} cannot be read (No such file or directory). Check its name.")
        files += sorted(path.rglob(pattern)) if path.is_dir() else [path]
    parts = ("train", "validation", "test")
    part_of = {file: next((part for part in parts if part in file.name), parts[0]) for file in files}
    files = [file for part in parts for file in part_of if part_of[file] == part and split in ("all", part)]
    if not files:
        what = pattern if split == "all" else f"{pattern} of split {split}"
        raise DataError(f"{', '.join(map(str, paths))} has no {what}. Name the folder or the files of the data set.")
    return files


def record_source(files: Sequence[Path], scenes_of: ToScenes, on_damage: OnDamage) -> RecordSource:
    """The records of TFRecord files; `scenes_of` gets the features of one, and its name for messages."""

    def read() -> Iterator[Record]:
        before = kept = 0
        for file in files:
            for record in records.read_records(file, on_damage, kept):
                yield Record(partial(parsed, record), before + record.file_bytes)
                kept += 1
            before += file.stat().st_size

    def parsed(record: records.Record) -> Sequence[EntryScene]:
        return scenes_of(parse_example(record.data, record.where), record.where)

    return RecordSource(read(), sum(file.stat().st_size for file in files), files)


@dataclass(frozen=True)
class RecordLayout:
    """What every record of a published file holds, `image` and `mask` among it."""

    file: str  # its published name
    features: Shapes
    entries: int = 0  # the axis of the mask that counts the entries
    frames: bool = False  # image and mask begin with the frames of a video

    def misfits(self, rows: Mapping[str, NDArray]) -> list[str]:
        """What a record's features differ in, in words."""
        wrong = []
        for name, (kind, shape) in self.features.items():
            if name not in rows:
                wrong.append(f"'{name}' is missing")
            elif rows[name].dtype != kind or rows[name].size != math.prod(shape):
                found, expected = rows[name], f"{math.prod(shape):,} x {kind.__name__}"
                wrong.append(f"'{name}' is {found.size:,} x {found.dtype}, not {expected}")
        return wrong

    def scenes(self, rows: Arrays) -> list[EntryScene]:
        """The scenes of a record that fits."""
        shaped = {name: rows[name].reshape(shape) for name, (_, shape) in self.features.items()}
        image, mask = shaped.pop("image"), shaped.pop("mask")[..., 0]
        if not self.frames:
            return [_scene(image, np.moveaxis(mask, self.entries, 0), shaped)]
        positions, cameras = shaped["object_positions"], shaped["camera_matrix"]
        return [
            _scene(image[t], mask[t], {"position": positions[:, t]}, {"camera_matrix": cameras[t]})
            for t in range(len(image))
        ]


def _scene(image: NDArray, masks: NDArray, factors: dict[str, NDArray], other: Arrays | None = None) -> EntryScene:
    visibility = factors.pop("visibility", np.asarray(masks.any(axis=(1, 2))))
    if "shape" in factors:  # counted from 1; what absent entries say means nothing
        factors["shape"] = np.nan_to_num(np.rint(factors["shape"])).clip(0, 255).astype(np.uint8)
    labels = masks.argmax(axis=0).astype(np.uint8)  # one-hot, 0 or 255
    return EntryScene(np.broadcast_to(image, (*image.shape[:2], 3)), labels, visibility, factors, other or {})


def _data_set(*layouts: RecordLayout, **more: object) -> DataSet:
    """A data set whose records have one of these layouts."""

    def scenes_of(features: Mapping[str, Feature], where: str) -> Sequence[EntryScene]:
        rows = {  # bytes may also have been written as one entry
            name: np.frombuffer(b"".join(values), np.uint8) if isinstance(values, list) else values
            for name, values in features.items()
        }
        for layout in layouts:
            if not layout.misfits(rows):
                return layout.scenes(rows)
        first = layouts[0]
        names = ", ".join(sorted(features)) or "none"
        sizes = {name: values.size for name, values in rows.items()}
        alike = (
            known.file
            for known in LAYOUTS
            if all(sizes.get(name) == math.prod(known.features[name][1]) for name in ("image", "mask"))
        )
        other = next(alike, first.file)
        looks = f"It looks like {other}" if other != first.file else f"Its features are {names}"
        text = f"{'; '.join(first.misfits(rows))}. {looks}. Give {first.file} instead."
        raise OtherDataError(f"{where} is no scene of {first.file}: {text}")

    def open_records(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> RecordSource:
        return record_source(find_files(paths, "*tfrecord*", settings.split), scenes_of, on_damage)

    return DataSet(open_records, **more)  # type: ignore[arg-type]


def _layout(
    file: str,
    image: tuple[int, ...],
    mask: tuple[int, ...],
    bytes_: Sequence[str] = (),
    floats: Sequence[str] = (),
    **wide: tuple[int, ...],
) -> RecordLayout:
    """The layout of a file by its shapes; the features `bytes_` and `floats` are [K]."""
    entries = 2 if mask[:2] == image[:2] else 0
    features: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "image": (np.uint8, image),
        "mask": (np.uint8, mask),
        **dict.fromkeys(bytes_, (np.uint8, (mask[entries],))),
        **dict.fromkeys(floats, (np.float32, (mask[entries],))),
        **{name: (np.float32, shape) for name, shape in wide.items()},
    }
    return RecordLayout(f"{file}.tfrecords", features, entries, len(image) == 4)


def _sprites(variant: str, entries: int, channels: int) -> RecordLayout:
    floats = ("x", "y", "shape", "visibility", "orientation", "scale")
    image, mask, color = (64, 64, channels), (64, 64, entries, 1), (entries, channels)
    return _layout(f"multi_dsprites_{variant}", image, mask, (), floats, color=color)


def clevr_split(count: int) -> dict[str, int]:
    """The first index and the number of the scenes that train and test, of `count`; too few are logged."""
    train = min(count, NUM_TRAIN)
    test = min(count - train, NUM_TEST)
    if test < NUM_TEST:
        _log.warning(
            f"{count:,} scenes are fewer than the {NUM_TRAIN + NUM_TEST:,} of the paper: {train:,} train and {test:,} "
            f"test. A recipe that names more needs other numbers: --test.count {test} and so on."
        )
    return {"train_first": 0, "train_count": train, "test_first": train, "test_count": test}


_TETROMINOES = _layout(
    "tetrominoes_train", (35, 35, 3), (4, 35, 35, 1), (), ("x", "y", "shape", "visibility"), color=(4, 3)
)
_ROOMS = [
    _layout(f"objects_room_{name}", (64, 64, 3), (entries, 64, 64, 1))
    for name, entries in (("train", 7), ("test_six_objects", 10), ("test_empty_room", 4))  # identical_color has 10 too
]
_SPRITES = [_sprites("colored_on_grayscale", 6, 3), _sprites("binarized", 4, 1), _sprites("colored_on_colored", 5, 3)]
_CLEVR = _layout(
    "clevr_with_masks_train",
    (240, 320, 3),
    (11, 240, 320, 1),
    ("size", "material", "shape", "color"),
    ("x", "y", "z", "rotation", "visibility"),
    pixel_coords=(11, 3),
)
_CATER = _layout(
    "cater_with_masks_train-XXXXX-of-00100",
    (33, 64, 64, 3),
    (33, 11, 64, 64, 1),
    camera_matrix=(33, 4, 4),
    object_positions=(11, 33, 3),
)
LAYOUTS = (_TETROMINOES, *_ROOMS, *_SPRITES, _CLEVR, _CATER)

TETROMINOES = _data_set(_TETROMINOES)
OBJECTS_ROOM = _data_set(*_ROOMS, defaults={"background": 4})
MULTI_DSPRITES, MULTI_DSPRITES_BINARIZED, MULTI_DSPRITES_COLORED_ON_COLORED = map(_data_set, _SPRITES)
CLEVR = _data_set(
    _CLEVR,
    defaults={"min_objects": 3, "max_objects": 6, "size": 128},
    crop=clevr_crop,
    low_pass=False,
    attributes=clevr_split,
)
CATER = _data_set(_CATER)

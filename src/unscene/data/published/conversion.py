"""From a published data set to an HDF5 file of scenes, in constant memory: what all data sets share.

A `DataSet` declares how its files are read, in which scenes of entries they result, and how the field crops them. The
conversion chooses scenes by their number of objects, makes the first entries the background, crops and resizes, and
writes. It can be interrupted and resumed. A damaged record is named and stops it, or is left out with `skip_damaged`.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt
from torch.nn import functional as F
from tqdm import tqdm

from unscene.data.generated_scenes import check_object_range
from unscene.data.hdf5.resumable_writer import scene_parts
from unscene.data.published import DATA_SETS
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import registered_class, settings_dataclass, typed_settings

Arrays = Mapping[str, NDArray]
OnDamage = Callable[[DataError], None] | None
Split = Literal["all", "train", "validation", "test"]

_START = {"records": 0, "sound": 0}  # records read, and the undamaged ones among them
_BATCH = 64  # scenes
_SHOWN = 5  # damaged records named one by one

_log = logging.getLogger(__name__)


@settings_dataclass
class ConversionSettings:
    """Which scenes are converted, and how."""

    size: NonNegativeInt = 0  # side of the square images, after the data set's crop; 0 keeps the pixels of the files
    min_objects: NonNegativeInt = 0  # scenes of fewer objects are left out; entries of the background do not count
    max_objects: NonNegativeInt = 255  # scenes of more objects are left out
    # So many of the first entries are background. Objects Room has 4: sky, floor and two walls.
    background: Annotated[int, Field(ge=1, le=255)] = 1
    # the part of the data set, where its files name parts; all are in the order train, validation, test
    split: Split = "all"

    def __post_init__(self) -> None:
        check_object_range(self.min_objects, self.max_objects)


@dataclass(frozen=True)
class EntryScene:
    """A scene as data sets describe it, by its K entries: the background first, then the objects."""

    image: NDArray[np.uint8]  # [H, W, 3]
    labels: NDArray[np.uint8] | None  # [H, W], the entry of every pixel; None if it is unknown
    visibility: NDArray[Any] | None  # [K], above 0 for the entries that exist; None if it is unknown
    factors: Arrays = field(default_factory=dict)  # [K, ...] by name
    other: Arrays = field(default_factory=dict)  # of the whole image, by name


@dataclass(frozen=True)
class Record:
    """A record of a source, not yet read."""

    read: Callable[[], Sequence[EntryScene]]  # one scene, or the frames of a video; raises DataError if it is damaged
    position: int  # in its source behind this record, in the source's unit


@dataclass(frozen=True)
class RecordSource:
    """The records of some files, in order."""

    records: Iterable[Record]
    total: int  # the position behind the last record
    files: Sequence[Path]  # what was found; decides whether an earlier conversion can be resumed
    unit: str = "B"

    @classmethod
    def of_scenes(
        cls, read: Callable[..., EntryScene], locations: Iterable[Any], total: int, files: Sequence[Path]
    ) -> RecordSource:
        """A source that counts its scenes; `read` gets the location of a scene, one value or a tuple."""

        def scene(location: Any) -> list[EntryScene]:
            return [read(*location) if isinstance(location, tuple) else read(location)]

        records = (Record(partial(scene, location), number) for number, location in enumerate(locations, 1))
        return cls(records, total, files, " scenes")


class OtherDataError(DataError):
    """A sound record of other data: no record of its file can be converted."""


@dataclass(frozen=True)
class DataSet:
    """A declaration of a data set."""

    # The source, of the files or folders that a user names. It calls its last argument for a damaged record and
    # continues behind it, or raises the error if that is None.
    open: Callable[[Sequence[Path], ConversionSettings, OnDamage], RecordSource]
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of the settings
    # rows and columns of the images [H, W] that the field uses
    crop: Callable[[int, int], tuple[slice, slice]] = lambda height, width: (slice(height), slice(width))
    low_pass: bool = True  # whether images are smoothed before they are reduced
    attributes: Callable[[int], dict[str, Any]] = lambda scenes: {}  # of the new file, from its number of scenes


def centre_crop(size: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the square of a side in the middle, rounded to the top left."""
    top, left = (height - size) // 2, (width - size) // 2
    return slice(top, top + size), slice(left, left + size)


def clevr_crop(height: int, width: int) -> tuple[slice, slice]:
    """The papers' crop of CLEVR's pictures of 240 x 320; other images stay."""
    return (slice(29, 221), slice(64, 256)) if (height, width) == (240, 320) else (slice(height), slice(width))


def convert(
    name: str,
    paths: Sequence[Path],
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    skip_damaged: bool = False,
    progress: bool = True,
    count: int | None = None,
) -> int:
    """Write the scenes of a published data set to the new HDF5 file `out`; return their number.

    The same command resumes an interrupted conversion: the finished scenes are in a folder beside `out`
    (`resumable_writer`), and their records are only passed over, and verified where the format asks for it. With
    `skip_damaged`, damaged records are left out where reading can continue; the log names the first of them, and the
    attribute `damaged_left_out` is their number. `count` limits the undamaged records that are read. RecipeError: an
    unknown data set or setting. DataError: a file is missing, damaged or of other data, `out` already exists or cannot
    be written, there are fewer than `count` records, or no scene is left.
    """
    data: DataSet = registered_class(DATA_SETS, name, "published data set")
    hint = f"It has: {', '.join(item.name for item in fields(ConversionSettings))}."
    chosen = typed_settings(ConversionSettings, {**data.defaults, **(settings or {})}, "data", name, hint)
    if count is not None and count < 1:
        raise DataError(f"count must be 1 or more, but is {count}.")
    errors: list[DataError] = []
    source = data.open([Path(path) for path in paths], chosen, errors.append if skip_damaged else None)
    made_from = {**asdict(chosen), "data": name, "files": _digest(source), "unscene_version": version("unscene")}
    with scene_parts(out, made_from, _START, lambda end: count is None or end["sound"] <= count) as parts:
        position = parts.position
        others = f" and {len(source.files) - 1:,} more files" if len(source.files) > 1 else ""
        label = f"{source.files[0].name}{others}"
        records = _sound_records(source, errors, skip_damaged, progress, position, label)
        left = None if count is None else count - position["sound"]
        finished = (_finished(scenes, data, chosen, number) for number, scenes in islice(records, left))
        parts.add(_batches(finished, label))
        if count is not None and position["sound"] < count:
            found = f"{position['sound']:,} records, fewer than the {count:,} asked for"
            raise DataError(f"{label}: {found}. Set count to {position['sound']}.")
        damaged = position["records"] - position["sound"]
        if not len(parts):
            objects = f"no scene of {chosen.min_objects} to {chosen.max_objects} objects"
            ways = f"{objects}. --data.min_objects 0 --data.max_objects 255 keeps all"
            if not position["sound"]:
                ways = f"no sound record, and {damaged:,} damaged ones. Download it again"
            raise DataError(f"{label} has {ways}.")
        about = {"source": f"{name}, converted from {label}", "records_read": position["sound"]}
        about |= {"damaged_left_out": damaged, "settings": asdict(chosen)}
        written = parts.join(about | data.attributes(len(parts)), progress)
    if damaged:
        _log.warning("%s: %d damaged records left out, %d kept", label, damaged, written)
    return written


def _sound_records(
    source: RecordSource,
    errors: list[DataError],
    skip_damaged: bool,
    progress: bool,
    position: dict[str, int],
    label: str,
) -> Iterator[tuple[int, Sequence[EntryScene]]]:
    """Yield the number and the scenes of one undamaged record after another, and update `position`.

    Records before it are only passed over. `errors` receives those that the source left out.
    """
    first, seen = position["records"], 0

    def pass_damaged() -> None:
        nonlocal seen
        for error in errors:
            seen += 1
            if first < seen and seen - position["sound"] <= _SHOWN:
                _log.warning("left out: %s", error)
        errors.clear()

    name = f"{label}, from record {first:,}" if first else label
    with tqdm(
        total=source.total, unit=source.unit, unit_scale=True, desc=name, file=sys.stderr, disable=not progress
    ) as bar:
        for record in source.records:
            pass_damaged()
            bar.update(record.position - bar.n)
            if seen < first:
                seen += 1
                continue
            try:
                scenes = record.read()
            except OtherDataError:
                raise
            except DataError as error:
                if not skip_damaged:
                    raise
                errors.append(error)
                continue
            seen += 1
            position.update(records=seen, sound=position["sound"] + 1)
            yield seen - 1, scenes
    pass_damaged()
    position["records"] = max(seen, first)


def _finished(
    scenes: Sequence[EntryScene], data: DataSet, settings: ConversionSettings, number: int
) -> list[dict[str, Any]]:
    """The scenes of a record that are kept, as they are written; frames of a video also have its number and theirs."""
    finished = []
    for frame, scene in enumerate(scenes):
        if arrays := _finished_scene(scene, data, settings):
            if len(scenes) > 1:
                arrays |= {"video": np.int32(number), "frame": np.int32(frame)}
            finished.append(arrays)
    return finished


def _finished_scene(scene: EntryScene, data: DataSet, settings: ConversionSettings) -> dict[str, Any]:
    """Image, label map, factors and visibility of the objects alone; nothing if it has too few or too many objects."""
    background = settings.background
    factors: dict[str, Any] = dict(scene.other)
    if scene.visibility is not None:
        K = len(scene.visibility)
        present = np.zeros(max(K - background, 1), np.bool_)
        present[: max(K - background, 0)] = scene.visibility[background:] > 0
        if not settings.min_objects <= present.sum() <= settings.max_objects:
            return {}
        for name, values in scene.factors.items():
            factors[name] = np.zeros((len(present), *values.shape[1:]), values.dtype)
            factors[name][present] = values[background:][present[: K - background]] if background < K else 0
        factors["visibility"] = present.astype(np.float32)
    rows, columns = data.crop(*scene.image.shape[:2])
    arrays: dict[str, Any] = {"image": _resized(scene.image[rows, columns], settings.size, data.low_pass)}
    if scene.labels is not None:
        labels = np.where(scene.labels < background, 0, scene.labels - (background - 1)).astype(np.uint8)
        arrays["labels"] = _resized(labels[rows, columns], settings.size)
    return arrays | factors


def _resized(pixels: NDArray[np.uint8], size: int, low_pass: bool = False) -> NDArray[np.uint8]:
    """An image [H, W, C], bilinear between the centres of pixels, halves up; a label map [H, W] by the nearest one."""
    if not size or pixels.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels)
    batch = torch.from_numpy(np.array(pixels).reshape(1, *pixels.shape[:2], -1)).permute(0, 3, 1, 2)
    if pixels.ndim == 2:
        return F.interpolate(batch, (size, size), mode="nearest-exact")[0, 0].numpy()
    smooth = F.interpolate(batch.float(), (size, size), mode="bilinear", antialias=low_pass)
    return np.ascontiguousarray((smooth + 0.5).floor().clamp(0, 255).byte()[0].permute(1, 2, 0).numpy())


def _batches(records: Iterable[Sequence[Arrays]], label: str) -> Iterator[dict[str, NDArray]]:
    """Whole records of scenes of the same arrays, stacked to 64 scenes or more, with the `boxes` of `labels`.

    OtherDataError: a scene has other arrays than those before it.
    """
    waiting: list[Arrays] = []
    shapes: dict[str, Any] = {}
    for scenes in records:
        for scene in scenes:
            found = {name: np.shape(values) for name, values in scene.items()}
            shapes = shapes or found
            if found != shapes:
                name = next(name for name in {**shapes, **found} if found.get(name) != shapes.get(name))
                change = f"'{name}' is {_axes(found.get(name))}, and in scenes before it {_axes(shapes.get(name))}"
                hint = "Convert files of different scenes one by one, or set --data.size"
                raise OtherDataError(f"{label}: {change}. {hint}; one file alone is damaged.")
        waiting += scenes
        if len(waiting) >= _BATCH:
            yield _stacked(waiting)
            waiting = []
    if waiting:
        yield _stacked(waiting)


def _axes(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _stacked(scenes: Sequence[Arrays]) -> dict[str, NDArray]:
    batch = {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]}
    if "labels" in batch:
        batch["boxes"] = boxes_of_labels(batch["labels"], batch["visibility"].shape[1])
    return batch


def _digest(source: RecordSource) -> str:
    """A digest of the names and sizes of the source's files."""
    text = "\n".join(f"{file.name} {file.stat().st_size}" for file in source.files)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

"""The instances of a COCO file as run lengths in a few arrays: small, checked once, shared by forked workers."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from unscene.errors import DataError

_MAX_INSTANCES = 255  # labels of a uint8 map
_MAX_NUMBER = 2**31 - 1  # largest number of a file; a larger one is damage and would overflow
_HINT = "Download it again, or pass --data.skip-damaged to leave such instances out."

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoInstances:
    """Masks and categories of the instances of N images. `from_coco` returns one."""

    sizes: NDArray[np.int64]  # [N, 2] height and width
    first: NDArray[np.int64]  # [N + 1] image n has the instances first[n] to first[n + 1]
    starts: NDArray[np.int64]  # [instances + 1] instance i has the bytes starts[i] to starts[i + 1]
    runs: NDArray[np.uint8]  # all run lengths, compressed as by pycocotools
    category_ids: NDArray[np.int64]  # [instances]

    @classmethod
    def from_coco(cls, coco: COCO, ids: list[int], file: Path, skip_damaged: bool = False) -> CocoInstances:
        """Return the instances of the images `ids` of a file, without crowd regions.

        With `skip_damaged`, damaged instances are left out, with a warning in the log.
        """
        sizes = [_size(coco.imgs[image], file) for image in ids]
        found: list[tuple[bytes, int]] = []  # run lengths and category of each instance
        first, skipped = [0], 0
        for image, size in zip(ids, sizes, strict=True):
            annotations = [item for item in coco.imgToAnns[image] if not item.get("iscrowd")]
            if len(annotations) > _MAX_INSTANCES:
                over = f"{len(annotations)} instances, over {_MAX_INSTANCES}"
                raise DataError(f"{file}: image {image} has {over}. Leave it out.")
            for annotation in annotations:
                try:
                    found.append((_run_lengths(annotation, *size), _category(annotation)))
                except DataError as error:
                    if not skip_damaged:
                        raise DataError(f"{file}: annotation {annotation.get('id')} {error} {_HINT}") from error
                    skipped += 1
            first.append(len(found))
        if skipped:
            _log.warning("%d of %d instances of %s left out, they are damaged", skipped, skipped + len(found), file)
        runs = [run for run, _ in found]
        return cls(
            sizes=np.array(sizes, np.int64),
            first=np.array(first, np.int64),
            starts=np.cumsum([0, *map(len, runs)], dtype=np.int64),
            runs=np.frombuffer(b"".join(runs), np.uint8),
            category_ids=np.array([category for _, category in found], np.int64),
        )

    @property
    def most(self) -> int:
        """M, the largest number of instances in an image."""
        return int(np.diff(self.first).max(initial=0))

    def size(self, image: int) -> tuple[int, int]:
        """Height and width of an image."""
        return tuple(self.sizes[image].tolist())

    def categories(self, image: int) -> NDArray[np.int64]:
        """The category ids of an image's instances."""
        return self.category_ids[self.first[image] : self.first[image + 1]]

    def masks(self, image: int) -> NDArray[np.uint8]:
        """[n, H, W] 0 or 1: the instances of an image."""
        size = self.size(image)
        instances = range(self.first[image], self.first[image + 1])
        if not instances:
            return np.zeros((0, *size), np.uint8)
        runs = [self.runs[self.starts[n] : self.starts[n + 1]].tobytes() for n in instances]
        masks: NDArray[np.uint8] = coco_mask.decode([{"size": list(size), "counts": run} for run in runs])
        return masks.transpose(2, 0, 1)


def read_coco(folder: Path, file: Path) -> tuple[COCO, list[int]]:
    """Read an annotation file by torchvision's `CocoDetection`: return pycocotools' index and the sorted image ids."""
    from torchvision.datasets import CocoDetection

    for path, exists in ((folder, folder.is_dir()), (file, file.is_file())):
        if not exists:
            raise DataError(
                f"COCO: there is no {path}. Unpack COCO's zips (for instance val2017.zip and "
                "annotations_trainval2017.zip) into one folder and name that with --data.folder."
            )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            dataset = CocoDetection(str(folder), str(file))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}). Download it again.") from error
    except (AssertionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not in COCO's layout ({error!r}). Give one of COCO's instances_*.json.") from error
    ids: list[int] = dataset.ids
    wrong = [image for image in ids if not isinstance(dataset.coco.imgs[image].get("file_name"), str)]
    if wrong or not ids:
        what = f"image {wrong[0]} has no 'file_name'" if wrong else "'images' is missing or empty"
        raise DataError(f"{file} is not in COCO's layout: {what}. Give one of COCO's instances_*.json.")
    return dataset.coco, ids


def _size(image: dict[str, Any], file: Path) -> tuple[int, int]:
    size: tuple[Any, Any] = image.get("height"), image.get("width")
    if not all(_is_whole(side, 1) for side in size):
        raise DataError(f"{file}: image {image['id']} has no 'height' and 'width' in pixels. Download it again.")
    return size


def _category(annotation: dict[str, Any]) -> int:
    category: Any = annotation.get("category_id")
    if not _is_whole(category):
        raise DataError(f"has {category!r} as 'category_id', expected a whole number.")
    return int(category)


def _run_lengths(annotation: dict[str, Any], height: int, width: int) -> bytes:
    """An instance's polygons or run lengths, as compressed run lengths; `from_coco` completes the messages."""
    given = annotation.get("segmentation")
    if isinstance(given, dict):
        return _compressed(given, height, width)
    if not isinstance(given, list) or not given:
        raise DataError("has no 'segmentation': captions and panoptic files have none; instances_*.json does.")
    furthest = 2 * max(height, width)  # COCO's polygons leave the image a little; far outside is damage
    for polygon in given:
        numbers = polygon if isinstance(polygon, list) else []
        near = all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= furthest for x in numbers)
        if len(numbers) < 6 or len(numbers) % 2 or not near:
            raise DataError("has a polygon that is not x1, y1, x2, y2 ... of three or more points within its image.")
    return bytes(coco_mask.merge(coco_mask.frPyObjects(given, height, width))["counts"])


def _compressed(given: dict[str, Any], height: int, width: int) -> bytes:
    size, counts = given.get("size"), given.get("counts")
    if size != [height, width]:
        raise DataError(f"has run lengths of size {size}, expected its image's [{height}, {width}].")
    lengths = _decompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(map(_is_whole, lengths)) or sum(lengths) != height * width:
        raise DataError(f"has run lengths that do not add up to the {height * width} pixels of its image.")
    return bytes(coco_mask.frPyObjects({"size": size, "counts": lengths}, height, width)["counts"])


def _decompressed(counts: str) -> list[int]:
    """Decode COCO's compressed run lengths, unchecked. (pycocotools' decoder assumes that they fill the image.)

    A character holds 48 + five bits + 32 if the number continues, the lowest bits first; the highest bit is the sign.
    From the fourth run on, a number is the difference from the last but one.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths


def _is_whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MAX_NUMBER

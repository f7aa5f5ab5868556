"""The instances of a COCO file, checked once and packed: small, and shared by forked workers."""

from __future__ import annotations

import json
import logging
import pickle
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from unscene.errors import DataError, refusal

_MAX_INSTANCES = 2**16  # of an image; more would take minutes
_MAX_NUMBER = 2**31 - 1  # largest number of a file; a larger one is damage and would overflow
_MAX_SIDE, _MAX_OUTLINE = 2**16, 10**7  # pixels of an image's side, and of a polygon; more would fill the memory
_HINT = "Download it again, or pass --data.skip-damaged to leave such instances out."

_log = logging.getLogger(__name__)


class ImageInstances(NamedTuple):
    """The instances of one image, without crowd regions."""

    height: int
    width: int
    runs: tuple[bytes, ...]  # the mask of each instance, as pycocotools compresses run lengths
    categories: tuple[int, ...]


class PackedInstances(Sequence[ImageInstances]):
    """The instances of N images as one array of bytes, of which a forked worker copies no page as it reads."""

    def __init__(self, images: Sequence[ImageInstances]) -> None:
        items = [pickle.dumps(tuple(image)) for image in images]
        self.most = max((len(image.runs) for image in images), default=0)  # M, the most instances of an image
        self._ends = np.cumsum([0, *map(len, items)])
        self._bytes = np.frombuffer(b"".join(items), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        return ImageInstances(*pickle.loads(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes()))


def read_coco(file: Path) -> tuple[list[dict[str, Any]], dict[Any, list[dict[str, Any]]]]:
    """Return the images of an annotation file in the order of their ids, and the annotations by image id."""
    try:
        content = json.loads(file.read_bytes())
        images = sorted(content.get("images", []), key=lambda image: image["id"])
        annotations = defaultdict(list)
        for annotation in content.get("annotations", []):
            annotations[annotation["image_id"]].append(annotation)
        unnamed = [image["id"] for image in images if not isinstance(image.get("file_name"), str)]
        ids = {image["id"] for image in images}
        unlisted = [image for image in annotations if image not in ids]
    except FileNotFoundError:
        raise DataError(missing(file)) from None
    except OSError as error:
        raise DataError(f"{file} {refusal(error) or f'cannot be read ({error}). Check its disk.'}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}). Download it again.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not in COCO's layout ({error!r}). Give one of COCO's instances_*.json.") from error
    if unnamed or not images or len(ids) < len(images):
        what = f"image {unnamed[0]} has no 'file_name'" if unnamed else "'images' is missing or empty"
        what = "two images have one 'id'" if len(ids) < len(images) else what
        raise DataError(f"{file} is not in COCO's layout: {what}. Give one of COCO's instances_*.json.")
    if unlisted:
        lost = sum(len(annotations[image]) for image in unlisted)
        message = f"{file}: {lost:,} annotations are of images that it does not list, for instance {unlisted[0]!r}"
        if len(unlisted) == len(annotations) or {str(image) for image in unlisted} & {str(image) for image in ids}:
            raise DataError(f"{message}. Its images have ids like {images[0]['id']!r}: make 'image_id' the same.")
        _log.warning("%s. They are left out.", message)
    return images, annotations


def missing(path: Path) -> str:
    return (
        f"COCO: there is no {path}. Unpack COCO's zips (for instance val2017.zip and annotations_trainval2017.zip) "
        "into one folder and name that with --data.folder."
    )


def pack_instances(
    images: Sequence[dict[str, Any]],
    annotations: dict[Any, list[dict[str, Any]]],
    file: Path,
    skip_damaged: bool,
) -> PackedInstances:
    """Check and pack the instances of images. With `skip_damaged`, damaged ones are left out, and the log warns."""
    packed, skipped, empty = [], 0, 0
    for image in images:
        height, width = (_whole(image.get(side), 1, _MAX_SIDE) for side in ("height", "width"))
        if height is None or width is None:
            sides = f"'height' and 'width' in pixels, up to {_MAX_SIDE:,}"
            raise DataError(f"{file}: image {image['id']} has no {sides}. Download it again.")
        found: list[tuple[bytes, int]] = []
        for annotation in annotations[image["id"]]:
            try:
                if annotation.get("iscrowd") not in (1, 0, None):
                    raise DataError(f"has {annotation['iscrowd']!r} as 'iscrowd', expected 0 or 1.")
                if not annotation.get("iscrowd"):
                    found.append(_instance(annotation, height, width))
            except DataError as error:
                if not skip_damaged:
                    raise DataError(f"{file}: annotation {annotation.get('id')} {error} {_HINT}") from error
                skipped += 1
        if len(found) > _MAX_INSTANCES:
            over = f"{len(found):,} instances, over {_MAX_INSTANCES:,}"
            raise DataError(f"{file}: image {image['id']} has {over}. Leave it out.")
        runs, categories = zip(*found, strict=True) if found else ((), ())
        packed.append(ImageInstances(height, width, runs, categories))
        empty += sum(int(coco_mask.area({"size": [height, width], "counts": counts})) < 2 for counts in runs)
    total = sum(len(image.runs) for image in packed)
    if empty and empty == total:
        message = f"{file}: no instance covers more than one pixel"
        raise DataError(f"{message}. COCO's coordinates are pixels, not shares of the image: convert them.")
    for number, what in ((skipped, "left out, they are damaged"), (empty, "cover no pixel, or one")):
        if number:
            _log.warning("%d of %d instances of %s %s", number, total + skipped, file, what)
    return PackedInstances(packed)


def _instance(annotation: dict[str, Any], height: int, width: int) -> tuple[bytes, int]:
    """The compressed run lengths of an instance's polygons or run lengths, and its category."""
    given, category = annotation.get("segmentation"), _whole(annotation.get("category_id"))
    if category is None:
        raise DataError(f"has {annotation.get('category_id')!r} as 'category_id', expected a whole number.")
    if isinstance(given, dict):
        return _compressed(given, height, width), category
    if not isinstance(given, list) or not given:
        raise DataError("has no 'segmentation': captions and panoptic files have none; instances_*.json does.")
    furthest = 2 * max(height, width)  # COCO's polygons leave the image a little; far outside is damage
    for polygon in given:
        numbers: list[Any] = polygon if isinstance(polygon, list) else [None]
        near = all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= furthest for x in numbers)
        if len(numbers) % 2 or not near or np.abs(np.diff(np.reshape(numbers, (-1, 2)), axis=0)).sum() > _MAX_OUTLINE:
            raise DataError("has a polygon that is not x1, y1, x2, y2 ... of three or more points within its image.")
    areas = [polygon for polygon in given if len(polygon) >= 6]  # two points beside a polygon have no area
    if not areas:
        raise DataError("has no polygon of three or more points.")
    return bytes(coco_mask.merge(coco_mask.frPyObjects(areas, height, width))["counts"]), category


def _compressed(given: dict[str, Any], height: int, width: int) -> bytes:
    size, counts = given.get("size"), given.get("counts")
    if size != [height, width]:
        raise DataError(f"has run lengths of size {size}, expected its image's [{height}, {width}].")
    given_lengths = _decompressed(counts) if isinstance(counts, str) else counts
    lengths = [_whole(length) for length in given_lengths] if isinstance(given_lengths, list) else [None]
    if None in lengths or sum(filter(None, lengths)) != height * width:
        raise DataError(f"has run lengths that do not add up to the {height * width} pixels of its image.")
    return bytes(coco_mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)["counts"])


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


def _whole(value: Any, least: int = 0, most: int = _MAX_NUMBER) -> int | None:
    """A whole number of the file, which may be written as 64.0; None if it is anything else."""
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and not isinstance(value, bool) and least <= value <= most else None

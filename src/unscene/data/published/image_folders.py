"""Published data sets that are folders of images, with label images and JSON: ClevrTex, ShapeStacks, CLEVR.

A PNG has a checksum for every chunk, and all are verified. JSON has none: a changed digit in it stays unnoticed.

Sources: `clevrtex_eval.py` of karazijal/clevrtex; ogroth/shapestacks and GENESIS's reader; the README of CLEVR v1.0.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unscene.data.clevr.objects import COLOURS, MATERIALS, SHAPES, SIZES
from unscene.data.published.conversion import (
    ConversionSettings,
    DataSet,
    EntryScene,
    OnDamage,
    RecordSource,
    centre_crop,
    clevr_crop,
)
from unscene.errors import DataError, refusal

ENTRIES = 11  # background and ten objects, in CLEVR and in ClevrTex
_SHAPESTACKS_ENTRIES = 8
_MAX_SCENE = 2**22  # characters of a scene in JSON
_WAYS_OUT = "Unpack it again, or pass --skip-damaged to leave such records out."
_CLEVRTEX = re.compile(r"CLEVRTEX_([a-z]+)_(\d{6})(_flat)?\.png")
_PARTS = {"train": "train", "validation": "val", "test": "test"}  # of CLEVR
_NUMBERS = {"3d_coords": 3, "pixel_coords": 3, "rotation": 1}  # of an object
_NAMES = {"shape": SHAPES, "material": MATERIALS, "color": tuple(COLOURS), "size": tuple(SIZES)}


def png_pixels(content: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a PNG of 8 bits a channel, [H, W] or [H, W, C], and verify the checksum of every chunk.

    DataError: it is damaged, or no such PNG.
    """
    kind, at = b"", 8
    while kind != b"IEND":
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4])
        checksum = int.from_bytes(content[end - 4 : end])
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise DataError(f"{where} is no PNG. {_WAYS_OUT}")
        if end > len(content) or zlib.crc32(content[at + 4 : end - 4]) != checksum:
            raise DataError(f"{where} is damaged or cut short in its chunk at byte {at:,}. {_WAYS_OUT}")
        at = end
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except Exception as error:  # decoders raise SyntaxError, struct.error ...
        raise DataError(f"{where} is damaged ({error}). {_WAYS_OUT}") from None
    if pixels.dtype != np.uint8:
        raise DataError(f"{where} has pixels of {pixels.dtype}, expected uint8. {_WAYS_OUT}")
    return pixels


def rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey, RGB or RGBA pixels as [H, W, 3]."""
    return np.broadcast_to(pixels[..., None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels[..., :3]


def label_map(pixels: NDArray[np.uint8], image: NDArray[np.uint8], entries: int, where: str) -> NDArray[np.uint8]:
    """Labels of an image, from the first channel; a DataError if they are not [H, W] or not below `entries`."""
    labels = pixels if pixels.ndim == 2 else pixels[..., 0]
    if labels.shape != image.shape[:2] or labels.max(initial=0) >= entries:
        found = f"{list(labels.shape)}, with labels up to {labels.max(initial=0)}"
        expected = f"{list(image.shape[:2])}, with labels up to {entries - 1}"
        raise DataError(f"{where} is {found}; expected {expected}. {_WAYS_OUT}")
    return labels


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} {refusal(error) or f'cannot be read ({error.strerror}).'} {_WAYS_OUT}") from None


def _pixels(path: Path) -> NDArray[np.uint8]:
    return png_pixels(_read(path), str(path))


def _objects(scene: Any, names: Mapping[str, Sequence[str]], where: str) -> tuple[NDArray[Any], dict[str, NDArray]]:
    """Visibility and factors of a scene's objects; those of `names` are counted from 1."""
    visibility = np.zeros(ENTRIES, np.float32)
    factors: dict[str, NDArray] = {name: np.zeros((ENTRIES, n), np.float32) for name, n in _NUMBERS.items()}
    factors |= {name: np.zeros(ENTRIES, np.uint8) for name in names}
    try:
        visibility[: 1 + len(scene["objects"])] = 1
        for entry, item in enumerate(scene["objects"], 1):
            for name in _NUMBERS:
                factors[name][entry] = item[name]
            for name, known in names.items():
                factors[name][entry] = 1 + known.index(item[name])
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        reason = f"has an object that cannot be read ({type(error).__name__}: {error})"
        raise DataError(f"{where} {reason}; expected up to {ENTRIES - 1} objects. {_WAYS_OUT}") from None
    return visibility, {name: values[:, 0] if values.shape[1:] == (1,) else values for name, values in factors.items()}


def _folder(paths: Sequence[Path], below: str) -> Path:
    """The only folder that is named, which holds another one."""
    if len(paths) == 1 and (paths[0] / below).is_dir():
        return paths[0]
    raise DataError(f"{', '.join(map(str, paths))} has no folder {below}/. Name the one folder that is unpacked.")


def _clevrtex(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> RecordSource:
    """Of the images in the order of their numbers, the first tenth is the test, the next one the validation."""
    found = {path: _CLEVRTEX.fullmatch(path.name) for folder in paths for path in folder.rglob("CLEVRTEX_*.png")}
    images = {(match[1], int(match[2])): path for path, match in found.items() if match and not match[3]}
    all_numbers = {(match[1], int(match[2])) for match in found.values() if match}
    variants = sorted({variant for variant, _ in all_numbers})
    numbers = sorted(number for _, number in all_numbers)
    if len(variants) != 1:
        seen = " and ".join(variants) or "no CLEVRTEX_VARIANT_000000.png"
        raise DataError(f"{', '.join(map(str, paths))} has {seen}. Name the unpacked folder of one variant.")
    missing = [number for number in range(numbers[0], numbers[-1] + 1) if (variants[0], number) not in images]
    if missing:
        name = f"CLEVRTEX_{variants[0]}_{missing[0]:06d}.png"
        raise DataError(f"{paths[0]} has no {name}, but other images. Unpack all parts of the data set.")
    ordered = [images[variants[0], number] for number in numbers]
    tenth, fifth = int(0.1 * len(ordered)), int(0.2 * len(ordered))
    parts = {"train": ordered[fifth:], "validation": ordered[tenth:fifth], "test": ordered[:tenth]}
    if variants == ["outd"]:  # is a test set
        parts = {"train": [], "validation": [], "test": ordered}
    chosen = [path for part, paths in parts.items() if settings.split in ("all", part) for path in paths]

    def scene(path: Path) -> EntryScene:
        json_path, label_path = path.with_suffix(".json"), path.with_name(f"{path.stem}_flat.png")
        image = rgb(_pixels(path))
        labels = label_map(_pixels(label_path), image, ENTRIES, str(label_path))
        content = _read(json_path)
        try:
            described = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{json_path} is damaged ({error}). {_WAYS_OUT}") from None
        return EntryScene(image, labels, *_objects(described, {}, str(json_path)))

    return RecordSource.of_scenes(scene, chosen, len(chosen), chosen)


def _shapestacks(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> RecordSource:
    """Scenarios by the lists in splits/default; without lists all train. A label is stored as 32 times itself."""

    def camera(path: Path) -> str:
        return path.name.rpartition("-cam_")[2].partition("-")[0]

    root = _folder(paths, "recordings")
    lists = {"train": "train", "validation": "eval", "test": "test"}
    texts = {part: root / "splits" / "default" / f"{name}.txt" for part, name in lists.items()}
    parts = {part: _read(text).decode(errors="replace").split() for part, text in texts.items() if text.is_file()}
    if not parts:
        parts = {"train": sorted(folder.name for folder in (root / "recordings").iterdir() if folder.is_dir())}
    scenarios = [name for part in parts if settings.split in ("all", part) for name in parts[part]]
    chosen: list[Path] = []
    for name in scenarios:
        views = sorted((root / "recordings" / Path(name).name).glob("rgb-*-cam_*-mono-0.png"))
        maps = (root / "iseg" / Path(name).name).glob("iseg-*-mono-0.map")
        lost = sorted({camera(path) for path in maps} - {camera(path) for path in views})
        if lost or not views:
            missing = f"rgb-*-cam_{lost[0] if lost else 'N'}-mono-0.png"
            raise DataError(f"{root} has no recordings/{name}/{missing}. Unpack it again.")
        chosen += views
    if not chosen:
        raise DataError(f"{root} has no scenario of split {settings.split}. Unpack it again.")

    def scene(path: Path) -> EntryScene:
        name = f"{path.parent.name}/iseg-w=0-f=0-l=0-c=original-cam_{camera(path)}-mono-0.map"
        maps = [root / "iseg" / name, root / "recordings" / name]
        label_path = next((path for path in maps if path.is_file()), maps[0])
        image, pixels = rgb(_pixels(path)), _pixels(label_path) // 32
        labels = label_map(pixels, image, _SHAPESTACKS_ENTRIES, str(label_path))
        counts = np.bincount(labels.ravel(), minlength=_SHAPESTACKS_ENTRIES)
        return EntryScene(image, labels, counts)

    return RecordSource.of_scenes(scene, chosen, len(chosen), chosen)


def _clevr_images(paths: Sequence[Path], settings: ConversionSettings, on_damage: OnDamage) -> RecordSource:
    """Train and validation have scenes; the test has images alone, and is converted if it is asked for."""
    root = _folder(paths, "images")
    parts = [part for part in _PARTS if settings.split == part or (settings.split == "all" and part != "test")]
    folders = {part: root / "images" / _PARTS[part] for part in parts}
    images = [path for folder in folders.values() for path in sorted(folder.glob("CLEVR_*.png"))]
    if not images:
        raise DataError(f"{root} has no images of split {settings.split}. Unpack it again.")

    def locations() -> Iterator[tuple[Path, Any, str]]:
        for part, folder in folders.items():
            scenes = root / "scenes" / f"CLEVR_{_PARTS[part]}_scenes.json"
            for index, item in enumerate(_scenes_of(scenes)):
                name = str(item.get("image_filename", "")) if isinstance(item, dict) else ""
                yield folder / Path(name).name, item, f"{scenes}: scene {index:,}"

    def described(path: Path, item: Any, where: str) -> EntryScene:
        return EntryScene(rgb(_pixels(path)), None, *_objects(item, _NAMES, where))

    def image_alone(path: Path) -> EntryScene:
        return EntryScene(rgb(_pixels(path)), None, None)

    if settings.split == "test":
        return RecordSource.of_scenes(image_alone, images, len(images), images)
    return RecordSource.of_scenes(described, locations(), len(images), images)


def _scenes_of(path: Path) -> Iterator[Any]:
    """The items of the list `scenes` of a JSON file, one after another: the whole would take gigabytes."""
    decode = json.JSONDecoder().raw_decode
    gap = re.compile(r"[\s,]*")
    try:
        with path.open(encoding="utf-8") as file:
            text, index = file.read(_MAX_SCENE), 0
            opening = re.search(r'"scenes"\s*:\s*\[', text)
            at = opening.end() if opening else len(text)
            while True:
                at = gap.match(text, at).end()  # type: ignore[union-attr]  # it always matches
                if text[at : at + 1] == "]":
                    return
                try:
                    item, at = decode(text, at)
                except (ValueError, RecursionError) as error:
                    more = file.read(_MAX_SCENE) if len(text) - at < _MAX_SCENE else ""
                    if not more:
                        keep = f", or pass --count {index} to keep the scenes before it" if index else ""
                        raise DataError(
                            f"{path}: scene {index:,} is damaged or cut short ({error}). Unpack it again{keep}."
                        ) from None
                    text, at = text[at:] + more, 0
                    continue
                yield item
                index += 1
    except OSError as error:
        raise DataError(f"{path} {refusal(error) or f'cannot be read ({error.strerror}).'}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is no text ({error}). Unpack it again.") from None


CLEVRTEX = DataSet(
    _clevrtex, {"size": 128}, lambda height, width: centre_crop(int(0.8 * min(height, width)), height, width)
)
SHAPESTACKS = DataSet(_shapestacks, {"size": 64}, partial(centre_crop, 196))
CLEVR_IMAGES = DataSet(_clevr_images, {"size": 128}, clevr_crop)

"""The sound inputs that the campaign damages: small files of every kind, written once into one folder."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import yaml
from PIL import Image

from tests.tiny import RECIPE
from unscene.cli.main import main
from unscene.recipes import load_recipe

# Image formats by suffix, with what Pillow needs to write them. Only the first ones detect a changed byte themselves.
CHECKED = {".png": {}, ".apng": {"format": "PNG", "save_all": True}}
UNCHECKED = {
    ".jpg": {"quality": 95},
    ".bmp": {},
    ".gif": {},
    ".tif": {},
    ".lzw.tif": {"compression": "tiff_lzw"},
    ".webp": {"lossless": True},
    ".ppm": {},
    ".tga": {},
    ".pcx": {},
    ".jp2": {},
}
MODEL = "model.safetensors"
FEW = ("--data.count=2", "--data.size=32")
EVALUATE = ("evaluate", MODEL, "--data", "store.h5", "--out", "out")
RESUME = ("train", "--resume", "run", "--trainer.max_steps=3")
REPRODUCE = ("reproduce", "table.yaml", "--out", "out", "--runs", "out/runs")
EVERY_STEP = ("--trainer.validate_minutes=0.00001", "--trainer.checkpoint_minutes=0.00001")


def picture(seed: int = 0) -> Image.Image:
    """Three squares on a noisy grey, 48 x 40 pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(55, 65, (40, 48, 3), np.uint8)
    for number, colour in enumerate(rng.integers(90, 256, (3, 3))):
        pixels[5 + 10 * number : 15 + 10 * number, 8 + 12 * number : 20 + 12 * number] = colour
    return Image.fromarray(pixels)


def run(*words: str) -> None:
    """A command that must succeed."""
    if main(words) != 0:
        raise SystemExit(f"the sound command failed: unscene {' '.join(words)}")


def write_inputs() -> None:
    """Write all inputs into the current folder."""
    for suffix, options in (CHECKED | UNCHECKED).items():
        picture().save(f"photo{suffix}", **options)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture().save("photo.turned.jpg", quality=95, exif=turned)
    Image.fromarray((np.arange(40 * 48).reshape(40, 48) * 34).astype(np.uint16)).save("photo.16.png")
    for name in ("photos/a.png", "photos/b.jpg", "photos/below/c.bmp", "photos/below/d.gif"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        picture(len(name)).save(name)
    Path("recipe.yaml").write_text(load_recipe("rmonet_unet/multi_dsprites_cpu", RECIPE).text())
    run("train", "recipe.yaml", "--trainer.max_steps=2", *EVERY_STEP, "--out=run")
    shutil.copy("run/weights.safetensors", "model.safetensors")
    run("generate", "multi_dsprites", "--count=4", "--out=store.h5", "--data.size=32")
    run("evaluate", "run", *FEW, "--out=earlier/evaluate")
    run("evaluate", "run", *FEW, "--shift=all", "--out=earlier/shifts")
    run("compare", "run", MODEL, *FEW, "--out=earlier/compare")
    run("decompose", "run", "photos", "--out=earlier/decompose")
    Path("scenes.tfrecords").write_bytes(b"".join(map(_scene_record, range(3))))
    Path("clevr.tfrecords").write_bytes(b"".join(map(_clevr_record, range(2))))
    _write_coco(Path("coco"))
    small = {name: value for name, value in RECIPE.items() if not name.endswith(".count")} | {"trainer.max_steps": 1}
    Path("images.yaml").write_text(
        load_recipe("rmonet_unet/images", small | {"data.name": "images", "data.folder": "photos"}).text()
    )
    row = {
        "title": "A",
        "data": "sprites",
        "recipe": "recipe.yaml",
        "changes": {"trainer.max_steps": 1, "test.count": 2},
    }
    table = {"title": "T", "metrics": ["ari_fg"], "rows": {"a": row, "b": {"like": "t/a", "paper": {"ari_fg": 0.5}}}}
    Path("table.yaml").write_text(yaml.safe_dump({"t": table}))
    part = {"count": 2, "first": 0}
    changes = {f"{section}.{name}": value for section in ("validation", "test") for name, value in part.items()}
    changes |= {"data.folder": "coco", "model.backbone.pretrained": False}
    Path("coco.yaml").write_text(load_recipe("rmonet_unet/coco", small | changes).text())
    run("train", "coco.yaml", "--out=coco_run")
    Path("coco_run/weights.safetensors").rename("coco.safetensors")


def _write_coco(root: Path) -> None:
    """Two lists of four images in COCO's layout: polygons, run lengths, two pieces, a crowd, an image without any."""
    (root / "annotations").mkdir(parents=True)
    for part in ("train2017", "val2017"):
        (root / part).mkdir()
        images, annotations = [], []
        for number in range(1, 5):
            name = f"{number:012}.jpg"
            picture(number).save(root / part / name)
            images.append({"id": number, "file_name": name, "width": 48, "height": 40, "license": 1})
            pieces = [[8, 5, 20, 5, 20, 15, 8, 15], [20, 15, 32, 15, 32, 25, 20, 25]][:number]
            runs = {"size": [40, 48], "counts": [40 * 30, 40 * 10, 40 * 8]}
            for segmentation, crowd in ((pieces, 0), (runs, int(number == 3))) if number < 4 else ():
                fields = {"segmentation": segmentation, "iscrowd": crowd, "area": 1.5, "bbox": [0, 0, 1, 1]}
                annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 18, **fields})
        content = {
            "info": {"year": 2017},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
        }
        (root / f"annotations/instances_{part}.json").write_text(json.dumps(content))


def _scene_record(seed: int) -> bytes:
    """A scene of Multi-dSprites in DeepMind's layout."""
    rng = np.random.default_rng(seed)
    features = {
        "image": rng.integers(0, 255, (64, 64, 3), np.uint8),
        "mask": np.eye(6, dtype=np.uint8)[rng.integers(0, 6, (64, 64))].reshape(64, 64, 6, 1) * 255,
        "color": rng.random((6, 3), np.float32),
        "visibility": np.ones(6, np.float32),
    }
    return _record(features | {name: rng.random(6, np.float32) for name in ("x", "y", "shape", "orientation", "scale")})


def _clevr_record(seed: int) -> bytes:
    """A scene of CLEVR with masks in DeepMind's layout: the background and four objects."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((11, 240, 320, 1), np.uint8)
    mask[0] = 255
    for entry in range(1, 5):
        mask[0, 60 : 60 + 20 * entry, 60 * entry - 20 : 60 * entry] = 0
        mask[entry, 60 : 60 + 20 * entry, 60 * entry - 20 : 60 * entry] = 255
    features = {"image": rng.integers(0, 255, (240, 320, 3), np.uint8), "mask": mask}
    features |= {name: rng.random(11, np.float32) for name in ("x", "y", "z", "rotation")}
    features |= {name: np.arange(11).astype(np.uint8) for name in ("shape", "size", "material", "color")}
    visibility = (np.arange(11) < 5).astype(np.float32)
    return _record(features | {"pixel_coords": rng.random((11, 3), np.float32), "visibility": visibility})


def _field(number: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + body


def _feature(values: np.ndarray) -> bytes:
    if values.dtype != np.uint8:
        return _field(2, _field(1, values.astype("<f4").tobytes()))
    ones = np.empty((values.size, 3), np.uint8)  # field 1 of one byte, again and again
    ones[:] = 0x0A, 0x01, 0x00
    ones[:, 2] = values.ravel()
    return _field(1, ones.tobytes())


def framed(data: bytes) -> bytes:
    """A record of a TFRecord file, with its length and both checksums."""
    length = struct.pack("<Q", len(data))
    checksums = [
        struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)
        for crc in map(google_crc32c.value, (length, data))
    ]
    return length + checksums[0] + data + checksums[1]


def _record(features: dict[str, np.ndarray]) -> bytes:
    entries = (_field(1, _field(1, name.encode()) + _field(2, _feature(value))) for name, value in features.items())
    return framed(_field(1, b"".join(entries)))

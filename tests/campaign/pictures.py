"""Mutations of images and of folders of them."""

from __future__ import annotations

import json
import os
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.campaign import metadata
from tests.campaign.damage import INSTEAD, WAYS, damaged, rewritten
from tests.campaign.inputs import CHECKED, MODEL, UNCHECKED, picture
from tests.campaign.judge import Case, Change, Check, Ran
from tests.campaign.texts import WORDS

FORMATS = (*CHECKED, *UNCHECKED, ".16.png")
NAMES = [*WORDS["image_names"], "x" * 240, "x" * 251]


def image_bytes(rng: random.Random, number: int) -> Case:
    """An image of each format, with each way of damage."""
    suffix, way = FORMATS[number % len(FORMATS)], [*WAYS][number // len(FORMATS) % len(WAYS)]
    photo = f"photo{suffix}"
    expect = "either" if suffix in (*CHECKED, ".16.png") else "decoded"
    if way == "append" and suffix not in (".tga", ".jp2"):
        expect = "same"
    words = ("decompose", MODEL, photo, "--out", "out")
    change = damaged(photo, way, number)
    return Case("images", f"{suffix} {way}", words, (MODEL, photo), change, expect, mentions=(photo,))


def image_metadata(rng: random.Random, number: int) -> Case:
    """Metadata that the pixels do not need."""
    payloads = metadata.payloads(rng)
    content = payloads[number // 3 % len(payloads)]
    if number % 3 == 0:
        photo, kind = "photo.png", rng.choice(WORDS["png_chunks"])
        sound, last = rng.random() < 0.7, rng.random() < 0.5
        change = rewritten(photo, lambda data: metadata.with_png_chunk(data, kind, content, sound, last))
    elif number % 3 == 1:
        photo, marker = "photo.jpg", rng.choice([0xE1, 0xE2, 0xE3, 0xEC, 0xED, 0xEF, 0xFE])
        kind = f"{marker:x}"
        change = rewritten(photo, lambda data: metadata.with_jpeg_segment(data, marker, content))
    else:
        photo, kind, content = "photo.turned.jpg", "orientation", metadata.odd_exif(6, rng)
        plain = metadata.without_exif
        change = rewritten(photo, lambda data: metadata.with_jpeg_segment(plain(data), 0xE1, content))
    words = ("decompose", MODEL, photo, "--out", "out")
    return Case("images", f"{photo} {kind} {content[:12]!r}", words, (MODEL, photo), change, "same")


def counts_images(number: int) -> Check:
    """All images have results, or a line says why some have none."""

    def check(folder: Path, ran: Ran) -> str:
        images = json.loads((folder / "out/objects.json").read_text())["images"]
        results = len([*(folder / "out").rglob("*.npz")])
        told = any(
            word in ran.err + ran.out for word in ("passed over", "left out", "not read", "skipped", "page", "frame")
        )
        if len(images) == results and (results == number or told):
            return ""
        return f"{len(images)} images, {results} results, expected {number}, and no line says why"

    return check


def tells_of_few_greys(folder: Path, ran: Ran) -> str:
    """A picture of 8 bits in 16 is read as it is meant, or with a warning."""
    return "" if "x.png" in ran.err + ran.out else "not a word of its few grey levels"


def add(name: str) -> Change:
    """One more image under a name."""
    return lambda folder: picture(9).save(folder / "photos" / name, "PNG")


def save(name: str, *pictures: Image.Image) -> Change:
    """One more image, of several pages or frames if there are several."""
    first, *rest = pictures
    more: dict[str, Any] = {"save_all": True, "append_images": rest} if rest else {}
    return lambda folder: first.save(folder / "photos" / name, **more)


def both(*changes: Change) -> Change:
    """Several changes."""
    return lambda folder: [change(folder) for change in changes]


def _bind_socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder / "photos")  # a socket's whole path is limited
    socket.socket(socket.AF_UNIX).bind("s.png")
    os.chdir(here)


def _deep(folder: Path) -> None:
    deep = folder / "photos" / "/".join(["d" * 200] * 12)
    deep.mkdir(parents=True)
    picture().save(deep / "x.png")


WIDE = Image.fromarray((np.arange(40 * 48) % 256).astype(np.uint16).reshape(40, 48))
FOLDERS: list[tuple[str, Change, str | Check]] = [
    *((f"name {name!r}", add(f"{name}.png"), counts_images(5)) for name in NAMES),
    *((f"suffix {suffix}", add(f"x{suffix}"), counts_images(5)) for suffix in WORDS["image_suffixes"]),
    *((f"{way} for x.png", both(add("x.png"), INSTEAD[way]("photos/x.png")), "any") for way in INSTEAD),
    *((f"{way} for the folder", INSTEAD[way]("photos"), "either") for way in INSTEAD),
    *(
        (name, lambda folder, name=name: (folder / "photos" / name).write_bytes(b"\0\1"), "same")
        for name in WORDS["foreign_files"]
    ),
    ("a socket", _bind_socket, "any"),
    ("a loop of links", lambda folder: (folder / "photos/loop").symlink_to(".."), "any"),
    ("linked twice", lambda folder: (folder / "photos/again").symlink_to("below"), "any"),
    ("deep", _deep, counts_images(5)),
    ("two of one name", both(add("a.jpg"), add("a.jpg.png")), counts_images(6)),
    ("two of one name by case", both(add("B.JPG"), add("b.Jpg")), counts_images(6)),
    ("pages", save("x.tif", picture(1), picture(2), picture(3)), counts_images(7)),
    *(
        (f"frames {kind}", save(f"x{kind}", picture(1), picture(2)), counts_images(6))
        for kind in (".gif", ".png", ".webp")
    ),
    ("8 bits in 16", save("x.png", WIDE), tells_of_few_greys),
    ("large", save("x.png", Image.new("RGB", (12_000, 9_000))), "any"),
    ("long", save("x.png", Image.new("1", (60_000, 3))), counts_images(5)),
    ("one pixel", save("x.png", Image.new("RGB", (1, 1))), counts_images(5)),
    ("CMYK", save("x.jpg", Image.new("CMYK", (9, 9))), counts_images(5)),
    ("alpha", save("x.png", Image.new("LA", (9, 9))), counts_images(5)),
    ("palette", save("x.png", picture(3).quantize(5)), counts_images(5)),
    ("not a number", save("x.tif", Image.new("F", (9, 9), float("nan"))), "any"),
]


def folders(rng: random.Random, number: int) -> Case:
    """What a folder of images may hold, for both commands that read one."""
    name, change, expect = FOLDERS[number // 2 % len(FOLDERS)]
    skips = number >= 2 * len(FOLDERS)
    if number % 2 == 0:
        words = ("decompose", MODEL, "photos", "--out", "out", *["--skip-damaged"] * skips)
        return Case("folders", f"decompose: {name}", words, (MODEL, "photos"), change, "any" if skips else expect)
    words = ("train", "images.yaml", "--out", "out", *["--data.skip-damaged"] * skips)
    return Case("folders", f"train: {name}", words, ("images.yaml", "photos"), change, "any")


KINDS = [(24 * len(FORMATS), image_bytes), (132, image_metadata), (2 * len(FOLDERS) + 30, folders)]

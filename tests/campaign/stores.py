"""Mutations of runs, weights, checkpoints, tables, HDF5 files, TFRecords and COCO's lists."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from tests.campaign.damage import INSTEAD, WAYS, damaged, rewritten
from tests.campaign.inputs import EVALUATE, EVERY_STEP, FEW, MODEL, RESUME, framed
from tests.campaign.judge import Case, Check, Ran
from tests.campaign.texts import WORDS, leaves

JUNK = [*WORDS["junk"], 10**400, "9" * 5000]
OF_A_RUN: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (RESUME, ("run",)),
    (("evaluate", "run", "--out", "out", *FEW), ("run",)),
    (("decompose", "run", "photo.png", "--out", "out"), ("run", "photo.png")),
    (("compare", "run", MODEL, "--out", "out", *FEW), ("run", MODEL)),
    (
        ("train", "recipe.yaml", "--trainer.max_steps=2", *EVERY_STEP, "--out=run", "--or-resume"),
        ("run", "recipe.yaml"),
    ),
]
CELLS = [*WORDS["cells"], "9" * 5000]


def trained_run(rng: random.Random, number: int) -> Case:
    """A run's folder of which one thing is not as it was."""
    name, which = WORDS["run_files"][number % 10], number // 10
    words, inputs = OF_A_RUN[which % len(OF_A_RUN)]
    ways = [*INSTEAD] if name in ("checkpoints", "samples", "tensorboard") else [*INSTEAD, *WAYS]
    way = ways[which // len(OF_A_RUN) % len(ways)]
    change = INSTEAD[way](f"run/{name}") if way in INSTEAD else damaged(f"run/{name}", way, number)
    expect = "same" if name == "health.txt" and way in WAYS else "either"  # it is written, and never read
    if words[0] in ("compare", "evaluate") and name in ("environment.json", "metrics.csv"):
        expect = "any"  # what they tell of the training is shown, if they are there
    return Case("run folders", f"{words[0]} {name}: {way}", words, inputs, change, expect)


def safetensors(rng: random.Random, number: int) -> Case:
    """A weights file with damaged bytes, or with other content in sound ones."""
    words, inputs = ("decompose", MODEL, "photo.png", "--out", "out"), (MODEL, "photo.png")
    way, junk, kind = [*WAYS][number // 2 % len(WAYS)], rng.choice(JUNK), number // 2 % 6
    if number % 2:
        return Case("safetensors", way, words, inputs, damaged(MODEL, way, number), mentions=(MODEL,))

    def change(folder: Path) -> None:
        with safe_open(folder / MODEL, framework="pt") as file:
            metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.offset_keys()}
        name, key = rng.choice(sorted(tensors)), rng.choice(sorted(metadata))
        if kind == 0:
            metadata[key] = rng.choice([json.dumps(junk), str(junk)])
        elif kind == 1:
            del metadata[key]
        elif kind == 2:
            section = rng.choice(["model", "data", "about", "trainer", "seed", "test"])
            metadata["recipe"] = json.dumps({**yaml.safe_load(metadata["recipe"]), section: junk})
        elif kind == 3:
            tensors[name] = rng.choice([tensors[name].double(), tensors[name].flatten(), tensors[name] * float("nan")])
        elif kind == 4:
            tensors[f"{name}.more"] = tensors[name].clone()
        else:
            del tensors[name]
        save_file(tensors, folder / "new", metadata)
        (folder / "new").rename(folder / MODEL)

    expect = "any" if kind in (0, 2) else "either"  # what a recipe's other values give is not known here
    return Case("safetensors", f"content {kind} {junk!r}"[:60], words, inputs, change, expect, mentions=(MODEL,))


def checkpoints(rng: random.Random, number: int) -> Case:
    """A last.ckpt with damaged bytes or sections."""
    file, way, junk = "run/checkpoints/last.ckpt", [*WAYS][number // 2 % len(WAYS)], rng.choice(JUNK)
    if number % 2:
        return Case("last.ckpt", way, RESUME, ("run",), damaged(file, way, number))

    def change(folder: Path) -> None:
        content = torch.load(folder / file, weights_only=True)
        name = rng.choice(sorted(content))
        inside = isinstance(content[name], dict) and content[name] and rng.random() < 0.5
        section, name = (content[name], rng.choice(sorted(content[name]))) if inside else (content, name)
        if rng.random() < 0.3:
            del section[name]
        else:
            section[name] = junk
        torch.save(content, folder / file)

    return Case("last.ckpt", f"content {junk!r}"[:60], RESUME, ("run",), change)


def metrics_csv(rng: random.Random, number: int) -> Case:
    """A metrics.csv of which a cell, a line, the header or bytes are not as they were."""

    def change(data: bytes) -> bytes:
        if number % 2:
            return WAYS[[*WAYS][number // 2 % len(WAYS)]](data, rng)
        lines = data.decode().splitlines()
        at = rng.randrange(len(lines))
        cells = lines[at].split(",")
        cells[rng.randrange(len(cells))] = CELLS[number // 2 % len(CELLS)]
        lines[at] = rng.choice([",".join(cells), ",".join(cells[:2]), lines[at] + ",1,2", ";".join(cells)])
        return "\n".join(lines).encode(rng.choice(["utf-8", "utf-8", "utf-16"]))

    words, inputs = OF_A_RUN[(0, 1, 3)[number % 3]]
    expect = "same" if words is RESUME else "any"  # what a training needs is in its checkpoint
    return Case("metrics.csv", f"{words[0]} {number}", words, inputs, rewritten("run/metrics.csv", change), expect)


def _put(name: str, change: Callable[[h5py.File], Any], **options: Any) -> Callable[[h5py.File, random.Random], None]:
    def put(file: h5py.File, rng: random.Random) -> None:
        value = change(file)
        if name in file:
            del file[name]
        if isinstance(value, h5py.ExternalLink | h5py.SoftLink):
            file[name] = value
        elif value is not None:
            file.create_dataset(name, **({"data": value} if isinstance(value, np.ndarray) else value), **options)

    return put


ZEROS = {"shape": (4, 32, 32), "dtype": np.uint8, "external": [("/dev/zero", 0, 4096)]}
SPARSE = {"shape": (2**40, 32, 32, 3), "dtype": np.uint8, "chunks": (1, 32, 32, 3)}
ANY_ANSWER = 6  # the first changes leave scenes that can be scored
STORE_CHANGES: list[Callable[[h5py.File, random.Random], object]] = [
    lambda file, rng: file.attrs.__setitem__(rng.choice([*file.attrs]), "x"),
    _put("mask", lambda file: None),
    _put("boxes", lambda file: None),
    _put("scale", lambda file: np.full((4, 5), np.nan)),
    _put("extra", lambda file: np.zeros((4, 2)), compression="gzip"),
    lambda file, rng: file.attrs.__setitem__("object_names", json.dumps([1, None])),
    _put("mask", lambda file: np.full(file["mask"].shape, 255, np.uint8)),
    lambda file, rng: file.attrs.__setitem__("complete", False),
    _put("image", lambda file: None),
    _put("image", lambda file: file["image"][()].astype(np.float32) / 255),
    _put("image", lambda file: file["image"][:3]),
    _put("image", lambda file: file["image"][()].transpose(0, 3, 1, 2)),
    _put("image", lambda file: SPARSE),
    _put("mask", lambda file: file["mask"][()].astype(np.int16) - 1),
    _put("mask", lambda file: file["mask"][()].astype(np.float32)),
    _put("mask", lambda file: file["mask"][:, :16]),
    _put("mask", lambda file: np.zeros((4, 300, 32, 32, 1), np.uint8)),
    _put("mask", lambda file: ZEROS),
    _put("mask", lambda file: h5py.ExternalLink("/etc/passwd", "mask")),
    _put("mask", lambda file: h5py.SoftLink("/mask")),
    _put("boxes", lambda file: file["boxes"][()] * np.float32("nan")),
    _put("boxes", lambda file: file["boxes"][()][..., [0, 1, 0, 1]]),
    _put("boxes", lambda file: file["boxes"][()] - np.float32([0, 0, 1, 1])),
    _put("boxes", lambda file: file["boxes"][()] / np.float32(32)),
    _put("boxes", lambda file: file["boxes"][()][:, :1]),
    _put("boxes", lambda file: file["boxes"][()][:, ::-1]),
    _put("boxes", lambda file: np.zeros((4, 10**6, 4), np.float32)),
    _put("boxes", lambda file: np.array([b"x"] * 4)),
]


def stores(rng: random.Random, number: int) -> Case:
    """An HDF5 file with damaged bytes, or with other arrays, attributes and links."""
    inputs, way, which = (MODEL, "store.h5"), [*WAYS][number // 2 % len(WAYS)], number // 2 % len(STORE_CHANGES)
    if number % 2:
        return Case("HDF5", way, EVALUATE, inputs, damaged("store.h5", way, number), mentions=("store.h5",))

    def change(folder: Path) -> None:
        with h5py.File(folder / "store.h5", "r+") as file:
            STORE_CHANGES[which](file, rng)

    expect: str | Check = "any" if which < ANY_ANSWER else _told_of_255 if which == ANY_ANSWER else "either"
    return Case("HDF5", f"content {which}", EVALUATE, inputs, change, expect)


def _told_of_255(folder: Path, ran: Ran) -> str:
    return "" if "--data.ignore_label 255" in ran.err else "label 255 counts as an object, without a word"


def records(rng: random.Random, number: int) -> Case:
    """A TFRecord file with damaged bytes, or a record that is wrong under a right checksum."""
    file, way = "scenes.tfrecords", [*WAYS][number // 2 % len(WAYS)]
    words = ("convert", "multi_dsprites", file, "--out", "out.h5")
    if number % 4 == 1:
        return Case("TFRecords", way, words, (file,), damaged(file, way, number), mentions=(file,))
    if number % 4 == 3:
        return Case("TFRecords", f"skip: {way}", (*words, "--skip-damaged"), (file,), damaged(file, way, number), "any")

    def change(data: bytes) -> bytes:
        size = int.from_bytes(data[:8], "little")
        return framed(WAYS[way](data[12 : 12 + size], rng)) + data[16 + size :]

    return Case("TFRecords", f"record: {way}", words, (file,), rewritten(file, change), "any", mentions=(file,))


def coco_json(rng: random.Random, number: int) -> Case:
    """A list of COCO with one value changed, or with damaged bytes."""
    file = "coco/annotations/instances_val2017.json"
    words = ("evaluate", "coco.safetensors", "--data.folder", "coco", "--out", "out")
    inputs = ("coco.safetensors", "coco")
    way, junk, found = [*WAYS][number // 4 % len(WAYS)], JUNK[number % len(JUNK)], []
    if number % 4 == 3:
        return Case("COCO", way, words, inputs, damaged(file, way, number), "any")

    def change(data: bytes) -> bytes:
        content = json.loads(data)
        path, value = rng.choice([*leaves(content)])
        path = path[: rng.choice([len(path), len(path), max(1, len(path) - 1), 1])]
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        if rng.random() < 0.2:
            del parent[path[-1]]
        else:
            parent[path[-1]] = float(value) if number % 5 == 0 and type(parent[path[-1]]) is int else junk
        found.extend(path)
        return json.dumps(content).encode()

    def check(folder: Path, ran: Ran) -> str:
        scores = json.loads((folder / "out/metrics.json").read_text())
        unneeded = {"info", "area", "bbox", "license", "categories"} & set(map(str, found))
        return "every score is gone" if not unneeded and scores.get("ari_fg") is None else ""

    return Case("COCO", f"{number} {junk!r}"[:60], words, inputs, rewritten(file, change), check)


KINDS = [
    (150, trained_run),
    (120, safetensors),
    (80, checkpoints),
    (60, metrics_csv),
    (130, stores),
    (90, records),
    (100, coco_json),
]

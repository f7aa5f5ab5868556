"""A recipe that trains in a second, a run that was trained by it, and a miniature in COCO's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from unscene.training.recipe import Recipe
    from unscene.training.run_folder import RunFolder

TINY: dict[str, Any] = {
    "data.size": 32,
    "data.count": 40,
    "validation.count": 6,
    "test.count": 4,
    "model.backbone.width": 8,
    "model.backbone.fpn_channels": 8,
    "model.head.channels": 8,
    "model.head.bottleneck": 16,
    "model.vae.encoder_channels": [8, 8],
    "model.vae.encoder_hidden": 16,
    "model.vae.decoder_channels": 8,
    "trainer.batch_size": 4,
    "trainer.max_steps": 6,
    "trainer.log_every": 2,
    "trainer.precision": "float32",
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
}


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """As they were: a training and a benchmark set them to 0 for the whole process, where hypothesis misses them."""
    yield
    import torch

    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """`tiny()` is the recipe, `tiny({"trainer.max_steps": 3})` changes it, `tiny(images=folder)` is it for a folder."""
    from unscene.recipes import load_recipe

    def make(changes: dict[str, Any] | None = None, images: str = "") -> Recipe:
        if not images:
            return load_recipe("rmonet_unet/multi_dsprites_cpu", TINY | (changes or {}))
        small = {name: value for name, value in TINY.items() if not name.endswith(".count")}
        return load_recipe("rmonet_unet/images", small | {"data.folder": images} | (changes or {}))

    return make


@pytest.fixture(scope="session")
def tiny_arguments() -> list[str]:
    """The same recipe for the command line."""
    settings = [f"--{name}={value}".replace(" ", "") for name, value in TINY.items()]
    return ["rmonet_unet/multi_dsprites_cpu", *settings]


@pytest.fixture(scope="session")
def trained(tiny: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of six steps; tests read it, none writes to it."""
    from unscene.training.train import train

    return train(tiny(), tmp_path_factory.mktemp("trained") / "run")


def rectangle(x1: int, y1: int, x2: int, y2: int) -> list[int]:
    """A polygon whose pixels are columns x1 to x2 - 1, rows y1 to y2 - 1."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """A folder as COCO's zips unpack: 8 images to train and 4 to validate, whose instances are worked by hand.

    val2017, 60 x 40 and 40 x 60 pixels; the list in the file is not in the order of the ids:
    7: instances of 400, 64 (on the former) and 52 pixels, the last in two pieces; a crowd in run lengths.
    9: upright, one instance at its top.  12: none.  30: an instance in run lengths, and a crowd.
    """
    from PIL import Image

    crowd = {"size": [40, 60], "counts": [0, 40 * 12, 40 * 48]}  # the first twelve columns
    plate = {"size": [40, 60], "counts": [40 * 30, 40 * 10, 40 * 20]}  # columns 30 to 39
    of_val = [
        (7, 18, 0, [rectangle(20, 10, 40, 30)]),
        (7, 1, 1, crowd),
        (7, 3, 0, [rectangle(30, 20, 38, 28)]),
        (7, 90, 0, [rectangle(0, 0, 4, 4), rectangle(50, 30, 56, 36)]),
        (9, 44, 0, [rectangle(0, 0, 40, 20)]),
        (30, 2, 0, plate),
        (30, 1, 1, crowd),
    ]
    of_train = [(number, 1, 0, [rectangle(20, 10, 30 + number, 30)]) for number in range(1, 9)]
    (tmp_path / "annotations").mkdir()
    for part, numbers, instances in (("train", range(1, 9), of_train), ("val", (30, 9, 7, 12), of_val)):
        folder = tmp_path / f"{part}2017"
        folder.mkdir()
        images = []
        for number in numbers:
            width, height = (40, 60) if number == 9 else (60, 40)
            Image.new("RGB", (width, height), (8 * number, 90, 20)).save(folder / f"{number:012}.jpg")
            images.append({"id": number, "file_name": f"{number:012}.jpg", "width": width, "height": height})
        annotations = [
            {"id": position, "image_id": image, "category_id": category, "iscrowd": iscrowd, "segmentation": pieces}
            for position, (image, category, iscrowd, pieces) in enumerate(instances, start=501)
        ]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        (tmp_path / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path

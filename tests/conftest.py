"""A recipe that trains in a second, a run that was trained by it, and a miniature in COCO's layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import RECIPE
from unscene.data.image_file import AS_STORED, ContrastSettings
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.scene import Decomposition

if TYPE_CHECKING:
    from unscene.runs.recipe import Recipe
    from unscene.runs.run_folder import RunFolder

os.environ.setdefault("UNSCENE_TRACEBACK", "1")  # no test takes an unforeseen error for a message


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
            return load_recipe("rmonet_unet/multi_dsprites_cpu", RECIPE | (changes or {}))
        small = {name: value for name, value in RECIPE.items() if not name.endswith(".count")}
        small |= {"data.name": "images", "data.folder": images}
        return load_recipe("rmonet_unet/images", small | (changes or {}))

    return make


@pytest.fixture(scope="session")
def tiny_arguments() -> list[str]:
    """The same recipe for the command line."""
    settings = [f"--{name}={value}".replace(" ", "") for name, value in RECIPE.items()]
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
    val_instances = [
        (7, 18, 0, [rectangle(20, 10, 40, 30)]),
        (7, 1, 1, crowd),
        (7, 3, 0, [rectangle(30, 20, 38, 28)]),
        (7, 90, 0, [rectangle(0, 0, 4, 4), rectangle(50, 30, 56, 36)]),
        (9, 44, 0, [rectangle(0, 0, 40, 20)]),
        (30, 2, 0, plate),
        (30, 1, 1, crowd),
    ]
    train_instances = [(number, 1, 0, [rectangle(20, 10, 30 + number, 30)]) for number in range(1, 9)]
    (tmp_path / "annotations").mkdir()
    for part, numbers, instances in (("train", range(1, 9), train_instances), ("val", (30, 9, 7, 12), val_instances)):
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


class ColourModel(nn.Module):
    """Each slot takes one colour, the most frequent one is the background, which is the last slot.

    Args:
        num_slots: K.
        noise: how much of each mask goes to the other slots.
        boxes: whether the model has boxes.
        locations: whether it has locations, the middles of the boxes.
    """

    def __init__(self, num_slots: int = 6, noise: float = 0.1, boxes: bool = True, locations: bool = False) -> None:
        super().__init__()
        self.num_slots, self.noise, self.boxes, self.locations = num_slots, noise, boxes, locations
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Decomposition:
        parts = [self._one(image) for image in images]
        masks, components, boxes = (torch.stack(part) for part in zip(*parts, strict=True))
        valid = boxes[..., 2] > boxes[..., 0]
        scores = valid.float() * torch.linspace(0.95, 0.6, valid.shape[1])
        return Decomposition(
            log_masks=masks.log(),
            components=components,
            background=-1,
            latents=masks.mean(dim=(2, 3, 4))[..., None].expand(-1, -1, 3),
            boxes=boxes if self.boxes else None,
            box_scores=scores if self.boxes else None,
            box_valid=valid if self.boxes else None,
            locations=(boxes[..., :2] + boxes[..., 2:]).flip(-1) / 2 / images.shape[-1] if self.locations else None,
        )

    def _one(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = image.shape[1:]
        coded = ((image * 255).round().long() * torch.tensor([65536, 256, 1]).view(3, 1, 1)).sum(0)
        colours, counts = coded.unique(return_counts=True)
        order = colours[counts.argsort(descending=True)][: self.num_slots].tolist()
        hard = torch.zeros(self.num_slots, 1, height, width)
        components = torch.full((self.num_slots, 3, height, width), 0.5)
        boxes = torch.zeros(self.num_slots - 1, 4)
        for position, colour in enumerate(order):
            slot = position - 1 if position else self.num_slots - 1
            where = coded == colour
            hard[slot, 0] = where
            components[slot] = image[:, where].mean(dim=1)[:, None, None]
            if position:
                rows, columns = torch.nonzero(where.any(1)), torch.nonzero(where.any(0))
                boxes[slot] = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        hard[-1, 0] += 1 - hard.sum(dim=0)[0]  # colours without a slot
        return hard * (1 - self.noise) + self.noise / self.num_slots, components, boxes


@dataclass
class FakeLoaded:
    """What `unscene.load` returns, as far as the report uses it."""

    model: ColourModel = field(default_factory=ColourModel)
    size: int = 64
    name: str = "colour/multi_dsprites"
    reported: dict[str, float] = field(default_factory=lambda: {"ari_fg": 0.951, "map_50_95": 0.435})
    provenance: dict[str, Any] = field(default_factory=lambda: {"run": "A", "sha256": "12ab", "step": 20000})
    batches: list[int] = field(default_factory=list)
    run: RunFolder | None = None
    data: dict[str, Any] = field(default_factory=dict)
    fit: str = "stretch"
    contrast: ContrastSettings = AS_STORED
    crop: int | None = None
    object_size: float | None = None
    tile: int | None = 64

    @property
    def config(self) -> dict[str, Any]:
        return {
            "about": {"title": "colours are objects", "reported": self.reported},
            "model": {"name": "colour", "num_slots": self.model.num_slots},
            "data": {"name": "multi_dsprites", "size": self.size} | self.data,
            "trainer": {"precision": "float32"},
        }

    def for_frames(self) -> FakeLoaded:
        return self

    def decompose(self, images: Tensor, batch_size: int = 32) -> Decomposition:
        self.batches.append(len(images))
        return self.model(images).map(lambda tensor: tensor.detach())


@pytest.fixture
def loaded() -> FakeLoaded:
    return FakeLoaded()


@pytest.fixture
def make_loaded() -> type[FakeLoaded]:
    return FakeLoaded


@pytest.fixture
def make_model() -> type[ColourModel]:
    return ColourModel


@pytest.fixture(scope="session")
def scenes() -> MultiDSprites:
    return MultiDSprites(MultiDSpritesSettings(count=40, seed=3))


@pytest.fixture(scope="session")
def state() -> Callable[[Path], dict[str, torch.Tensor]]:
    """The model's tensors of a checkpoint."""
    return lambda path: torch.load(path, weights_only=True)["model"]

"""A model for the tests that needs no training: the scenes' sprites have one colour each, so colours are objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.scene import Decomposition
from unscene.training.run_folder import RunFolder


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
        for place, colour in enumerate(order):
            slot = place - 1 if place else self.num_slots - 1
            where = coded == colour
            hard[slot, 0] = where
            components[slot] = image[:, where].mean(dim=1)[:, None, None]
            if place:
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

    @property
    def recipe(self) -> dict[str, Any]:
        return {
            "about": {"title": "colours are objects", "reported": self.reported},
            "model": {"name": "colour", "num_slots": self.model.num_slots},
            "data": {"name": "multi_dsprites", "size": self.size} | self.data,
            "trainer": {"precision": "float32"},
        }

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

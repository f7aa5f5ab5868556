"""What makes the trainings of the documents small, and a reader's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import unscene
from tests.tiny import RECIPE
from unscene.data import SOURCES
from unscene.metrics import METRICS
from unscene.models import MODELS

ROOT = Path(__file__).resolve().parents[2]
SMALL_TRAINING = {name: value for name, value in RECIPE.items() if name.startswith("trainer.")} | {
    "trainer.max_steps": 2,
    "trainer.batch_size": 2,
    "trainer.max_minutes": 1,
}
SMALL_MODEL = {name: value for name, value in RECIPE.items() if name.startswith("model.")}


def small_settings(recipe: str, images: bool = False) -> dict[str, Any]:
    """What makes the training of a recipe short; `images`: on a folder of images."""
    settings = SMALL_TRAINING | ({} if images or recipe == "explicit_localization/images" else {"validation.count": 2})
    return settings | (SMALL_MODEL if recipe.startswith("rmonet_unet/") else {})


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Iterator[Path]:
    """A reader's folder: the example images, and functions that train and score with small settings.

    What a page registers is forgotten after it.
    """
    shutil.copytree(ROOT / "docs" / "images" / "scenes", tmp_path / "docs" / "images" / "scenes")
    monkeypatch.chdir(tmp_path)
    train, evaluate = unscene.train, unscene.evaluate

    def train_small(recipe: str, settings: dict[str, Any] | None = None, **more: Any) -> Any:
        settings = settings or {}
        return train(recipe, settings | small_settings(str(recipe), images="data" in settings), **more)

    def evaluate_small(model: Any, settings: dict[str, Any] | None = None, **more: Any) -> Any:
        return evaluate(model, (settings or {}) | ({} if "data" in more else {"data.count": 2}), **more)

    monkeypatch.setattr(unscene, "train", train_small, raising=False)
    monkeypatch.setattr(unscene, "evaluate", evaluate_small, raising=False)
    with patch.dict(MODELS), patch.dict(SOURCES), patch.dict(METRICS):
        yield tmp_path

"""CONTRIBUTING.md: its examples of a model, a data set, a metric and a recipe work together as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unscene.data import SOURCES
from unscene.metrics import METRICS
from unscene.models import MODELS
from unscene.recipes import load_recipe
from unscene.scene import Scene
from unscene.training.train import train

PAGE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def examples(monkeypatch, tmp_path) -> ModuleType:
    """The page's Python as a module, registered by one line each; its recipe as a file."""
    text = PAGE.read_text(encoding="utf-8")
    module = ModuleType("examples_of_the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(MODELS, "greys", "examples_of_the_page:Greys")
    monkeypatch.setitem(SOURCES, "stripes", "examples_of_the_page:Stripes")
    monkeypatch.setitem(METRICS, "sharpness", "examples_of_the_page:Sharpness")
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "greys.yaml").write_text(recipe)
    return module


def test_the_examples_train(examples, tmp_path):
    recipe = load_recipe(str(tmp_path / "greys.yaml"), {"trainer.accelerator": "cpu"})
    run = train(recipe, tmp_path / "run")
    rows = [line.split(",") for line in run.metrics.read_text().splitlines()]
    losses = [float(row[2]) for row in rows[1:] if row[2]]
    assert rows[0][2] == "train/loss"
    assert losses[-1] < 0.5 * losses[0]  # two greys are soon found


def test_the_metric_of_the_page_by_hand(examples):
    settings = examples.GreysSettings(num_slots=2)
    model = examples.Greys(settings)
    torch.nn.init.zeros_(model.alpha.weight)
    model.alpha.bias.data = torch.tensor([0.0, 0.0])
    scene = Scene(torch.zeros(3, 3, 4, 4))
    first, second = examples.Sharpness(), examples.Sharpness()
    assert first.compute() == {"sharpness": None}
    first.update(scene, model(scene.images))
    model.alpha.bias.data = torch.tensor([0.75, 0.25]).log()
    second.update(scene, model(scene.images))
    first.merge(second)
    assert first.per_image() == pytest.approx([0.5] * 3 + [0.75] * 3)
    assert first.compute() == pytest.approx({"sharpness": 0.625})


def test_the_data_of_the_page_by_hand(examples):
    sample = examples.Stripes(examples.StripesSettings(size=4)).batch([1, 5, 2])
    assert sample["image"].shape == (3, 4, 4, 3)
    assert sample["labels"].sum(axis=2).tolist() == [[0, 4, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]]
    assert sample["boxes"].tolist() == [[[0, 1, 4, 2]], [[0, 1, 4, 2]], [[0, 2, 4, 3]]]

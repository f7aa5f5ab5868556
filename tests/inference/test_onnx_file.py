"""onnx_file: onnxruntime gives the numbers of PyTorch, and a model that cannot be exported says why."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch.testing import assert_close

from tests.tiny import MODELS, SIZE
from unscene.cli.main import main
from unscene.errors import ExtraError, RecipeError, RunError
from unscene.inference import onnx_file
from unscene.inference.onnx_file import export_onnx
from unscene.models import model_class
from unscene.runs.loading import LoadedModel, load, shipped_weights

EXPORTED = [
    *(("monet", variant) for variant in ("unet", "resnet and pyramid")),
    *(("rmonet", variant) for variant in ("lite", "roi_align", "regions")),
    *(("space", variant) for variant in ("as it is", "enlarged", "ours")),
    ("redo", "two regions"),
]


def loaded_tiny(name: str, variant: str, tiny_recipe) -> LoadedModel:
    """A model of the contract test, with random weights."""
    torch.manual_seed(0)
    settings = MODELS[name][variant]
    recipe = tiny_recipe({"data.size": SIZE})
    object.__setattr__(recipe, "model_name", name)
    return LoadedModel(model_class(name)(settings).eval(), recipe, {"weights": "random", "step": 0})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), EXPORTED)
def test_onnxruntime_gives_the_numbers_of_pytorch(name, variant, tiny, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    loaded, path = loaded_tiny(name, variant, tiny), tmp_path / "model.onnx"
    assert export_onnx(loaded, path, batch_size=2) <= 1e-4
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    expected = loaded.decompose(images)
    for field, output in zip(names, session.run(None, {"images": images.numpy()}), strict=True):
        found, true = torch.as_tensor(output), getattr(expected, field)
        if field == "log_masks":
            found, true = found.exp(), true.exp()
        if field == "components":
            found, true = expected.masks() * found, expected.masks() * true
        assert_close(found, true, rtol=0, atol=1e-2 if field == "boxes" else 3e-4 if variant == "ours" else 1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["provenance"]) == {"weights": "random", "step": 0}
    assert facts["background"] == str(expected.background)
    assert f"name: {loaded.name}" in facts["recipe"]


@pytest.mark.slow
def test_a_graph_of_other_numbers_is_not_written(tiny, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    with pytest.raises(RecipeError, match="differs from PyTorch"):
        export_onnx(loaded_tiny("monet", "unet", tiny), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_rounding_of_float32_is_no_difference(tiny, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    monkeypatch.setattr(onnx_file, "TOLERANCE", 1e-5)
    loaded = loaded_tiny("space", "ours", tiny)
    assert 1e-5 < export_onnx(loaded, tmp_path / "model.onnx") < 1e-4
    measure, calls = onnx_file._difference, []
    monkeypatch.setattr(
        onnx_file, "_difference", lambda a, b: calls.append(0) or (5e-5 if len(calls) == 1 else measure(a, a))
    )
    with pytest.raises(RecipeError, match="differs from PyTorch by 5e-05, more than 0"):
        export_onnx(loaded, tmp_path / "other.onnx")


@pytest.mark.parametrize("name", ["iodine", "explicit_localization"])
def test_a_model_that_cannot_be_exported_says_why(name, tiny, tmp_path):
    with pytest.raises(RecipeError, match=f"^{name} cannot be exported: it .*export another model"):
        export_onnx(loaded_tiny(name, "paper", tiny), tmp_path / "model.onnx")


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    name = next(name for name in shipped_weights() if name.startswith("rmonet"))
    with pytest.raises(ExtraError, match=r"^onnxruntime is not installed, .*: pip install 'unscene\[export\]'\.$"):
        export_onnx(load(name), tmp_path / "model.onnx")
    assert main(["export", name, str(tmp_path / "model.onnx")]) == 1
    assert capsys.readouterr().err.startswith("ExtraError: onnxruntime is not installed")


def test_a_file_is_never_overwritten(trained, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("mine")
    with pytest.raises(RunError, match="never overwritten"):
        export_onnx(load(trained.path), path)
    with pytest.raises(RecipeError, match="1 or more, but is 0"):
        export_onnx(load(trained.path), tmp_path / "other.onnx", batch_size=0)
    assert path.read_text() == "mine"

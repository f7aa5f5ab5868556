"""import_closure: what a job's static imports are."""

from __future__ import annotations

from tools.import_closure import JOBS, PACKAGE, closure, imported


def test_a_training_needs_its_model_and_no_other():
    files = closure(*JOBS["train MONet on Multi-dSprites"])
    assert {"training/loop.py", "runs/recipe.py", "models/monet/model.py", "errors.py"} <= files
    assert not [file for file in files if file.startswith(("models/space", "evaluation", "inference", "data/clevr"))]


def test_imports_for_types_alone_do_not_count(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport unscene.scene\nif TYPE_CHECKING:\n    import unscene.errors\n"
        "def inside():\n    from unscene.runs import recipe\n"
    )
    assert set(imported(path)) == {
        "typing",
        "typing.TYPE_CHECKING",
        "unscene.scene",
        "unscene.runs",
        "unscene.runs.recipe",
    }


def test_lightning_gives_fabric_alone():
    modules = {module for path in PACKAGE.rglob("*.py") for module in imported(path)}
    assert {module for module in modules if module.startswith("lightning")} == {
        "lightning.fabric",
        "lightning.fabric.Fabric",
    }

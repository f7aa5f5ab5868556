"""import_closure: the static imports of a job, and their largest number."""

from __future__ import annotations

import pytest

from tools.import_closure import JOBS, PACKAGE, closure, imported

MOST_FILES = {"train MONet on Multi-dSprites": 45, "decompose images with R-MONet": 40}


@pytest.mark.parametrize("job", JOBS)
def test_reader_of_a_job_needs_few_files(job):
    files = sorted(closure(*JOBS[job]))
    assert len(files) <= MOST_FILES[job], f"merge small files, or import less: {', '.join(files)}"


def test_training_needs_its_model_and_no_other():
    files = closure(*JOBS["train MONet on Multi-dSprites"])
    assert {"training/loop.py", "runs/recipe.py", "models/monet/model.py", "errors.py"} <= files
    assert not [file for file in files if file.startswith(("models/space", "evaluation", "inference", "data/clevr"))]


def test_imports_for_types_do_not_count(tmp_path):
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


def test_nothing_but_fabric_is_imported_from_lightning():
    modules = {module for path in PACKAGE.rglob("*.py") for module in imported(path)}
    found = {module for module in modules if module.startswith("lightning")}
    assert "lightning.fabric.Fabric" in found
    assert all(module.startswith("lightning.fabric") for module in found)

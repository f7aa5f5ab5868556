"""The notebooks run from top to bottom, with small settings; their stored outputs are of the cells as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("*.ipynb"))
SMALLER = {'COUNT = Path("my_images"), 2000': 'COUNT = Path("my_images"), 8'}


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, reader, monkeypatch):
    folder = reader / "docs" / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for large, small in SMALLER.items():
                source = source.replace(large, small)
            exec(compile(source, f"{path.name}, cell {number}", "exec"), names)
    assert names["result"].num_slots > 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs_and_no_path_of_a_machine(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" for output in outputs)
    assert "/home/" not in path.read_text(encoding="utf-8")

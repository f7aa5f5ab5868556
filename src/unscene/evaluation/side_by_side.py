"""Evaluations side by side: of several models on the same scenes, or of one model on several test sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unscene.data import Source
from unscene.evaluation.evaluate import json_text
from unscene.evaluation.scenes import read_scenes
from unscene.files import write_text
from unscene.report.figures import comparison_rows, rows_png
from unscene.report.page import Picture, write_page
from unscene.report.results import Curves, ModelResult, page_values
from unscene.report.table import Table

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

SCHEMA = 2  # of compare.json and shifts.json; raised whenever a name in them changes its meaning


@dataclass(frozen=True)
class SideBySide:
    """Evaluations in one table and on one page."""

    title: str  # of the page; heading, intro, footnote: of its table
    heading: str
    intro: str
    footnote: str
    table: Table  # a row for each evaluation
    results: tuple[ModelResult, ...]  # the evaluations, under the names of the table's rows
    pictures: tuple[tuple[str, Picture], ...]  # the first scenes, under a heading that may be empty
    curves: Curves | None = None  # of the validations, where there are any
    facts: Mapping[str, Any] = field(default_factory=dict)  # what the JSON file holds beside the table

    def as_json(self) -> dict[str, Any]:
        """The content of the JSON file: everything but the pictures."""
        label, notes = self.table.label, list(self.table.notes)
        rows = [
            {label: row.name, **row.as_json(), "evaluation": result.as_json()}
            for row, result in zip(self.table.rows, self.results, strict=True)
        ]
        return {"schema": SCHEMA, **self.facts, "notes": notes, f"{label}s": rows}

    def write(self, folder: Path, name: str) -> None:
        """Write `NAME.json` and `index.html`."""
        write_text(folder / f"{name}.json", json_text(self.as_json()))
        shown = {part: getattr(self, part) for part in ("heading", "intro", "footnote", "table", "pictures", "curves")}
        values = page_values(self.results) | shown
        write_page(folder / "index.html", self.title, template="table.html.j2", **values)


def draw_scenes(models: Mapping[str, LoadedModel], source: Source, count: int) -> Picture:
    """The first scenes of a source, segmented and reconstructed by every model."""
    scene = read_scenes(source, range(count), next(iter(models.values())).size)
    found = {name: model.decompose(scene.images) for name, model in models.items()}
    rows = "images, " + ("their true segmentation, " if scene.labels is not None else "")
    alt = f"{count} scenes, a column each. Rows: {rows}then segmentation and reconstruction by {', '.join(models)}."
    columns = "Scene 0" if count == 1 else f"Scenes 0 to {count - 1}"
    return Picture(rows_png(comparison_rows(scene, found)), alt, f"{columns} of the data named under Provenance.")

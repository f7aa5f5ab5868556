"""The table of a comparison, a model a row: for the page, for the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from unscene.report.comparison import ComparedModel, Comparison
from unscene.report.metric_descriptions import Description, description_of, shown

HEADINGS: dict[str, tuple[str, str]] = {
    "parameters": ("", "parameters"),
    "training_steps": ("training", "steps"),
    "training_minutes": ("training", "minutes"),
    "training_images_per_second": ("training", "images/s"),
    "images_per_second": ("decomposing", "images/s"),
    "ari_fg": ("ARI", "fg"),
    "map_50_95": ("mAP", ".50:.95"),
    "map_50": ("mAP", ".50"),
    "map_75": ("mAP", ".75"),
    "mask_iou": ("mask", "IoU"),
    "reconstruction_mse": ("reconstr.", "error"),
}
_WIDTH = 120  # characters of a line in the terminal
_NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    """A value as it is shown: its text, what the paper reports, and whether it is the best of its column."""

    text: str
    paper: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A number of every model, in the order of the models."""

    name: str
    heading: tuple[str, str]
    described: Description
    cells: tuple[Cell, ...]


def comparison_table(comparison: Comparison) -> list[Column]:
    """The columns: those of `HEADINGS`, and any other score that a paper of one of the models reports.

    The best value is marked where one is better than another. Steps, minutes and parameters are what somebody chose to
    spend, and the speeds of trainings on different machines say nothing of the models: there none is.
    """
    models = comparison.models
    reported = [name for model in models for name in model.result.reported]
    names = dict.fromkeys([*HEADINGS, *reported])
    return [_column(name, models) for name in names]


def best_places(values: Sequence[float | None], described: Description) -> set[int]:
    """Where the best of some values stand, to the digits that are shown.

    Nowhere if there is but one value, all are equal, or neither way is better.
    """
    seen = [None if value is None else round(value, described.decimals) for value in values]
    known = {value for value in seen if value is not None}
    if not described.better or len(known) < 2:
        return set()
    best = max(known) if described.better == "higher" else min(known)
    return {place for place, value in enumerate(seen) if value == best}


def table_lines(comparison: Comparison) -> list[str]:
    """The table as lines of at most 120 characters, unless a name is longer: first who is who, then the numbers.

    A line `paper` below a model's holds what its paper reports. Columns that do not fit go on below.
    """
    lines = [f"{place}  {_described(model)}" for place, model in enumerate(comparison.models, start=1)]
    for block in aligned_blocks(_rows(comparison_table(comparison), len(comparison.models))):
        lines += ["", *block]
    lines += ["", "* best of its column   - not applicable, or not known"]
    return [*lines, *(line for note in comparison.notes for line in wrap(note, _WIDTH))]


def table_csv(comparison: Comparison) -> str:
    """The table as CSV, every digit: a model a row, an empty cell for no value; `reported_` is what the paper says."""
    names = [column.name for column in comparison_table(comparison)]
    reported = [name for name in names if any(name in model.result.reported for model in comparison.models)]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["name", "recipe", "weights_step", *names, *(f"reported_{name}" for name in reported)])
    for model in comparison.models:
        values, papers = model.values(), model.result.reported
        row = [model.name, model.recipe, model.weights_step]
        writer.writerow([*row, *(values.get(name) for name in names), *(papers.get(name) for name in reported)])
    return file.getvalue()


def _column(name: str, models: Sequence[ComparedModel]) -> Column:
    values = [model.values().get(name) for model in models]
    described = description_of(name)
    machines = {model.training.machine for model in models if model.training}
    comparable = name != "training_images_per_second" or (len(machines) == 1 and "" not in machines)
    best = best_places(values, described) if comparable else set()
    papers = [model.result.reported.get(name) for model in models]
    cells = (
        Cell(_text(name, value), "" if paper is None else shown(name, paper), place in best)
        for place, (value, paper) in enumerate(zip(values, papers, strict=True))
    )
    first, _, second = described.label.partition(", ")
    return Column(name, HEADINGS.get(name, (first, second)), described, tuple(cells))


def _text(name: str, value: float | int | None) -> str:
    return _NOTHING if value is None else shown(name, value)


def _described(model: ComparedModel) -> str:
    recipe = "" if model.recipe == model.name else f": {model.recipe}"
    step = "" if model.weights_step is None else f", weights of step {model.weights_step:,}"
    return f"{model.name}{recipe}{step}"


def _rows(columns: Sequence[Column], models: int) -> list[list[str]]:
    """The lines of the table, cell by cell: two of headings, then each model's and its paper's."""
    rows = [["", *(f"{column.heading[line]} " for column in columns)] for line in range(2)]
    for place in range(models):
        cells = [column.cells[place] for column in columns]
        rows.append([str(place + 1), *(cell.text + ("*" if cell.best else " ") for cell in cells)])
        if any(cell.paper for cell in cells):
            rows.append(["paper", *(f"{cell.paper} " for cell in cells)])
    return rows


def aligned_blocks(rows: list[list[str]]) -> list[list[str]]:
    """The rows as aligned lines of at most 120 characters.

    Columns beyond that make a further block, which begins with the first column too.
    """
    label, *columns = [[row[place] for row in rows] for place in range(len(rows[0]))]
    beginning = [text.ljust(max(map(len, label))) for text in label]
    blocks = [beginning]
    for column in columns:
        width = max(map(len, column))
        if len(blocks[-1][0]) + 1 + width > _WIDTH:
            blocks.append(beginning)
        blocks[-1] = [f"{line} {text:>{width}}" for line, text in zip(blocks[-1], column, strict=True)]
    return [[line.rstrip() for line in block] for block in blocks]

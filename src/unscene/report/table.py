"""A table of numbers, a row for each model, test set or recipe: for the terminal, a page, CSV and JSON.

What each number means and how it is written stands in metric_descriptions.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import yaml

from unscene.files import csv_text

WIDTH = 120  # characters of a line in the terminal
MISSING = "-"


@dataclass(frozen=True)
class Description:
    label: str  # its name in tables
    explanation: str  # one line
    decimals: int = 3  # digits after the point
    unit: str = ""  # behind the number
    better: Literal["higher", "lower", ""] = "higher"  # which direction is better; empty for a count
    headline: bool = False  # whether it is at the top of the page
    short: Sequence[str] = ()  # the two lines above its column; if empty the label, split at its comma
    signed: bool = False  # whether a number above 0 has a plus sign

    @property
    def heading(self) -> Sequence[str]:
        return self.short or self.label.partition(", ")[::2]


_YAML = Path(__file__).with_name("metric_descriptions.yaml").read_text(encoding="utf-8")
DESCRIPTIONS = {name: Description(**fields) for name, fields in yaml.safe_load(_YAML).items()}


def description_of(name: str) -> Description:
    """The description of a number; one without an entry has its own name as label."""
    return DESCRIPTIONS.get(name, Description(name.replace("_", " "), "", better=""))


def shown(name: str, value: float | int | None) -> str:
    """A value as the page shows it; None is not applicable."""
    if value is None:
        return "not applicable"
    described = description_of(name)
    sign = "+" if described.signed else ""
    return f"{value:{sign},.{described.decimals}f}{' ' * bool(described.unit)}{described.unit}"


@dataclass(frozen=True)
class Row:
    name: str  # in the first column
    values: Mapping[str, float | int | None]  # numbers by name; None is not applicable, or not known
    paper: Mapping[str, float] = field(default_factory=dict)  # what a paper reports, by the same names
    sd: Mapping[str, float] = field(default_factory=dict)  # standard deviations of means
    facts: Mapping[str, Any] = field(default_factory=dict)  # what CSV and JSON hold beside the numbers
    details: tuple[str, ...] = ()  # short lines below the name on a page

    def as_json(self) -> dict[str, Any]:
        """Every number under its own name, the paper's numbers under `reported`."""
        return {"name": self.name, **self.facts, **self.values, "reported": dict(self.paper)}


@dataclass(frozen=True)
class Cell:
    """A number as text, the paper's number as text, and whether it is the best of its column."""

    text: str
    paper: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    label: str  # heading of the first column
    columns: tuple[str, ...]  # names of numbers
    rows: tuple[Row, ...]  # in their order
    unranked: frozenset[str] = frozenset()  # columns in which the best number is not marked
    notes: tuple[str, ...] = ()  # sentences below the table
    intro: str = ""  # a sentence above the table

    def described(self) -> list[Description]:
        return [description_of(name) for name in self.columns]

    def cells(self) -> list[list[Cell]]:
        columns = [self._column(name) for name in self.columns]
        return [[column[index] for column in columns] for index in range(len(self.rows))]

    def _column(self, name: str) -> list[Cell]:
        values = [row.values.get(name) for row in self.rows]
        best = set() if name in self.unranked else best_rows(values, description_of(name))
        cells = []
        for index, (row, value) in enumerate(zip(self.rows, values, strict=True)):
            text = MISSING if value is None else shown(name, value)
            if value is not None and name in row.sd:
                text += f" ± {shown(name, row.sd[name])}"
            cells.append(Cell(text, shown(name, row.paper[name]) if name in row.paper else "", index in best))
        return cells

    def lines(self) -> list[str]:
        """The table as aligned lines of at most 120 characters, unless a name is longer, and the notes.

        A line `paper` below a row holds the numbers of its paper. Columns that do not fit follow in a further block.
        """
        headings = [column.heading for column in self.described()]
        rows = [["", *(f"{first} " for first, _ in headings)], [self.label, *(f"{second} " for _, second in headings)]]
        for row, cells in zip(self.rows, self.cells(), strict=True):
            rows.append([row.name, *(cell.text + ("*" if cell.best else " ") for cell in cells)])
            if any(cell.paper for cell in cells):
                rows.append(["  paper", *(f"{cell.paper} " for cell in cells)])
        lines = [line for block in _aligned_blocks(rows) for line in (*block, "")]
        if any(cell.best for cells in self.cells() for cell in cells):
            lines.append("* best of its column   - not applicable, or not known")
        lines += [line for note in self.notes for line in wrap(note, WIDTH)]
        return lines if lines[-1] else lines[:-1]

    def csv(self) -> str:
        """The table as CSV with all digits; an empty cell for no value; `reported_NAME` is the paper's number."""
        reported = [name for name in self.columns if any(name in row.paper for row in self.rows)]
        facts = dict.fromkeys(name for row in self.rows for name in row.facts)
        rows = []
        for row in self.rows:
            numbers = [row.values.get(name) for name in self.columns] + [row.paper.get(name) for name in reported]
            rows.append([row.name, *(row.facts.get(name) for name in facts), *numbers])
        return csv_text(["name", *facts, *self.columns, *(f"reported_{name}" for name in reported)], rows)


def best_rows(values: Sequence[float | None], described: Description) -> set[int]:
    """The indices of the best values, to the digits that are shown; none if all are equal or no direction is better."""
    rounded = [None if value is None else round(value, described.decimals) for value in values]
    known = {value for value in rounded if value is not None}
    if not described.better or len(known) < 2:
        return set()
    best = max(known) if described.better == "higher" else min(known)
    return {index for index, value in enumerate(rounded) if value == best}


def _aligned_blocks(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows as aligned lines; columns beyond the width make a further block, which repeats the first column."""
    label, *columns = [[row[index] for row in rows] for index in range(len(rows[0]))]
    first_column = [text.ljust(max(map(len, label))) for text in label]
    blocks = [first_column]
    for column in columns:
        width = max(map(len, column))
        if len(blocks[-1][0]) + 1 + width > WIDTH and blocks[-1] is not first_column:
            blocks.append(first_column)
        blocks[-1] = [f"{line} {text:>{width}}" for line, text in zip(blocks[-1], column, strict=True)]
    return [[line.rstrip() for line in block] for block in blocks]

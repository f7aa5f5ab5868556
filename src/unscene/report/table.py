"""A table of numbers, a row for each model, test set or recipe: for the terminal, a page, CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

from unscene.report.metric_descriptions import Description, description_of, shown

WIDTH = 120  # characters of a line in the terminal
MISSING = "-"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: in the first column.
        values: numbers by name; None is not applicable, or not known.
        paper: what a paper reports, by the same names.
        sd: the standard deviations of values that are means over several runs.
        facts: what else CSV and JSON say of the row, before the numbers.
        details: short lines below the name on a page.
    """

    name: str
    values: Mapping[str, float | int | None]
    paper: Mapping[str, float] = field(default_factory=dict)
    sd: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    details: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Every number under its own name, what the paper reports under `reported`."""
        return {"name": self.name, **self.facts, **self.values, "reported": dict(self.paper)}


@dataclass(frozen=True)
class Cell:
    """A number as text, the paper's number as text, and whether it is the best of its column."""

    text: str
    paper: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows and columns.

    Attributes:
        label: heading of the first column.
        columns: names of numbers, as `unscene.report.metric_descriptions` describes them.
        rows: in their order.
        unranked: columns in which the best number is not marked.
        notes: sentences below the table in the terminal.
    """

    label: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    unranked: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def described(self) -> list[Description]:
        """The description of each column."""
        return [description_of(name) for name in self.columns]

    def cells(self) -> list[list[Cell]]:
        """The cells of each row."""
        columns = [self._column(name) for name in self.columns]
        return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in self.rows]

    def _column(self, name: str) -> list[Cell]:
        values = [row.values.get(name) for row in self.rows]
        best = set() if name in self.unranked else best_rows(values, description_of(name))
        return [
            Cell(
                _text(name, value, row.sd.get(name)),
                shown(name, row.paper[name]) if name in row.paper else "",
                index in best,
            )
            for index, (row, value) in enumerate(zip(self.rows, values, strict=True))
        ]

    def lines(self) -> list[str]:
        """The table as aligned lines of at most 120 characters, unless a name is longer, and the notes.

        A line `paper` below a row holds what its paper reports. Columns that do not fit follow in a further block.
        """
        headings = [column.heading for column in self.described()]
        rows = [["", *(f"{heading[0]} " for heading in headings)]]
        rows += [[self.label, *(f"{heading[1]} " for heading in headings)]]
        for row, cells in zip(self.rows, self.cells(), strict=True):
            rows.append([row.name, *(cell.text + ("*" if cell.best else " ") for cell in cells)])
            if any(cell.paper for cell in cells):
                rows.append(["  paper", *(f"{cell.paper} " for cell in cells)])
        lines = [line for block in _aligned_blocks(rows) for line in (*block, "")]
        if any(cell.best for cells in self.cells() for cell in cells):
            lines.append("* best of its column   - not applicable, or not known")
        lines += [line for note in self.notes for line in wrap(note, WIDTH)]
        return lines if lines[-1] else lines[:-1]

    def markdown(self) -> str:
        """The table in Markdown; the paper's number stands behind ours."""
        headings = [" ".join(filter(None, column.heading)) for column in self.described()]
        lines = [f"| {' | '.join([self.label, *headings])} |", f"|{'---|' * (1 + len(headings))}"]
        for row, cells in zip(self.rows, self.cells(), strict=True):
            texts = [f"{cell.text} (paper {cell.paper})" if cell.paper else cell.text for cell in cells]
            lines.append(f"| {' | '.join([row.name, *texts])} |")
        return "\n".join(lines)

    def csv(self) -> str:
        """The table as CSV, every digit; an empty cell for no value; `reported_NAME` is what the paper reports."""
        reported = [name for name in self.columns if any(name in row.paper for row in self.rows)]
        facts = dict.fromkeys(name for row in self.rows for name in row.facts)
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", *facts, *self.columns, *(f"reported_{name}" for name in reported)])
        for row in self.rows:
            numbers = [row.values.get(name) for name in self.columns] + [row.paper.get(name) for name in reported]
            writer.writerow([row.name, *(row.facts.get(name) for name in facts), *numbers])
        return file.getvalue()

    def as_json(self) -> list[dict[str, Any]]:
        """The rows, ready for JSON."""
        return [row.as_json() for row in self.rows]


def best_rows(values: Sequence[float | None], described: Description) -> set[int]:
    """The indices of the best values, to the digits that are shown; none if all are equal or neither way is better."""
    rounded = [None if value is None else round(value, described.decimals) for value in values]
    known = {value for value in rounded if value is not None}
    if not described.better or len(known) < 2:
        return set()
    best = max(known) if described.better == "higher" else min(known)
    return {index for index, value in enumerate(rounded) if value == best}


def _text(name: str, value: float | int | None, sd: float | None) -> str:
    if value is None:
        return MISSING
    return shown(name, value) if sd is None else f"{shown(name, value)} ± {shown(name, sd)}"


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

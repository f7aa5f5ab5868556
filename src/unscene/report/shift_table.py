"""The table of an evaluation under shifts, a shift a row: for the page and for the terminal."""

from __future__ import annotations

from textwrap import wrap

from unscene.report.comparison_table import HEADINGS, Cell, Column, aligned_blocks
from unscene.report.metric_descriptions import description_of, shown
from unscene.report.page import scenes_in_words
from unscene.report.shifted_evaluation import ShiftedEvaluation

_HEADINGS = HEADINGS | {"slots": ("", "slots"), "ari_fg_change": ("ARI", "change")}
_COLUMNS = ("slots", "ari_fg", "ari_fg_change", "map_50", "mask_iou", "reconstruction_mse")
_WIDTH = 120  # characters of a line in the terminal


def shift_table(evaluation: ShiftedEvaluation) -> list[Column]:
    """The columns that hold a number; a cell for each row of the evaluation."""
    numbers = [evaluation.values(row) for row in evaluation.rows]
    return [
        Column(
            name,
            _HEADINGS[name],
            description_of(name),
            tuple(Cell(_text(name, values.get(name))) for values in numbers),
        )
        for name in _COLUMNS
        if any(values.get(name) is not None for values in numbers)
    ]


def shift_lines(evaluation: ShiftedEvaluation) -> list[str]:
    """What was scored, the table as lines of at most 120 characters, and the notes."""
    columns = shift_table(evaluation)
    rows = [["", *(column.heading[line] for column in columns)] for line in range(2)]
    rows += [[row.name, *(column.cells[place].text for column in columns)] for place, row in enumerate(evaluation.rows)]
    lines = [line for block in aligned_blocks(rows) for line in block]
    said = [f"{row.name}: {row.note}" for row in evaluation.rows if row.note]
    title = f"{evaluation.name}: {scenes_in_words(evaluation.data)}, and as many of each shift"
    return [title, "", *lines, *([""] if said else []), *(line for note in said for line in wrap(note, _WIDTH))]


def changes_in_words(changes: dict[str, object]) -> str:
    """`min_objects 7, shapes cone`; empty for none."""
    return ", ".join(f"{name} {_in_words(value)}" for name, value in changes.items())


def _in_words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _text(name: str, value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" if name == "ari_fg_change" else shown(name, value)

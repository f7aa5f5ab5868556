"""The papers' tables as trainings: which recipe each row is, and what the paper reports. The numbers are in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from unscene.errors import RecipeError, did_you_mean
from unscene.recipes import load_recipe
from unscene.runs.recipe import Recipe
from unscene.settings import typed_settings

TABLES = Path(__file__).with_name("paper_tables.yaml")


@dataclass(frozen=True)
class PaperRow:
    """One row: a training for each seed.

    Attributes:
        title: as the table prints it.
        data: what it is trained and tested on.
        recipe: the compact recipe.
        full: the paper's recipe; empty for none.
        changes: settings of the compact recipe by dotted name.
        ablation: settings of both recipes by dotted name.
        files: by the setting that names a file of scenes: the file, the source that draws it, and its settings.
        seeds: how many seeds, from 0.
        minutes: of training at most; 0 for no limit but the recipe's `trainer.max_steps`.
        stages: shares of the training after which the model is kept and scored as well.
        paper: what the paper reports, by our metrics' names.
        home: table and row under which its trainings are kept: those of another table where the row shows them again.
    """

    title: str
    data: str
    recipe: str
    full: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    ablation: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: int = 1
    minutes: float = 0.0
    stages: tuple[float, ...] = (1.0,)
    paper: dict[str, float] = field(default_factory=dict)
    home: tuple[str, str] = ("", "")

    def resolved(self, seed: int) -> Recipe:
        """The recipe with this row's changes and a seed."""
        return load_recipe(self.recipe, {**self.changes, **self.ablation, "seed": seed})


@dataclass(frozen=True)
class PaperTable:
    """A table or figure of a paper.

    Attributes:
        name: for instance `rmonet_table1`.
        title: one line.
        metrics: its columns.
        rows: by name.
        figure: what is drawn as well: `curves`, `scenes`, `slots` or nothing.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    rows: Mapping[str, PaperRow]
    figure: Literal["", "curves", "scenes", "slots"] = ""


def paper_tables(own: Path | None = None) -> dict[str, PaperTable]:
    """The tables of the package by name, and those of a file of one's own.

    Raises:
        RecipeError: the file is no such YAML.
    """
    values = _read(TABLES) | (_read(own) if own else {})
    rows = {(table, name): dict(row) for table, entry in values.items() for name, row in entry["rows"].items()}
    return {
        table: PaperTable(
            table,
            entry["title"],
            tuple(entry["metrics"]),
            {name: _row(rows, (table, name)) for name in entry["rows"]},
            entry.get("figure", ""),
        )
        for table, entry in values.items()
    }


def find_table(word: str, full: bool = False) -> PaperTable:
    """The table of a name, or the only one in a YAML file of one's own.

    Args:
        word: its name, or the path of a file.
        full: with the papers' recipes instead of the compact ones, under the name `NAME_full`.

    Raises:
        RecipeError: there is no such table.
    """
    own = Path(word) if word.endswith((".yaml", ".yml")) else None
    tables = paper_tables(own)
    name = next(iter(_read(own))) if own else word
    if name not in tables:
        raise RecipeError(f"there is no table '{name}', only {', '.join(tables)}.{did_you_mean(name, tables)}")
    return _full(tables[name]) if full else tables[name]


def choose_rows(table: PaperTable, names: Sequence[str]) -> dict[str, PaperRow]:
    """The rows of these names, or all for no name.

    Raises:
        RecipeError: a row that the table does not have.
    """
    for name in names:
        if name not in table.rows:
            raise RecipeError(
                f"{table.name} has no row '{name}', only {', '.join(table.rows)}.{did_you_mean(name, table.rows)}"
            )
    return {name: row for name, row in table.rows.items() if name in (names or table.rows)}


def _full(table: PaperTable) -> PaperTable:
    rows = {
        name: replace(row, recipe=row.full, changes={}, minutes=0.0, home=(f"{row.home[0]}_full", row.home[1]))
        for name, row in table.rows.items()
        if row.full
    }
    return replace(table, name=f"{table.name}_full", title=f"{table.title}, the papers' recipes", rows=rows)


def _row(rows: Mapping[tuple[str, str], dict[str, Any]], key: tuple[str, str]) -> PaperRow:
    values = dict(rows[key])
    like = values.pop("like", None)
    if like is None:
        row: PaperRow = typed_settings(PaperRow, values, f"rows.{key[1]}", key[0])
        return replace(row, home=key)
    table, _, name = like.partition("/")
    return replace(_row(rows, (table, name)), **values)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read as a file of tables: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(
        isinstance(entry, dict) and "rows" in entry for entry in values.values()
    ):
        raise RecipeError(f"{path} is no file of tables: it must hold TABLE: {{title, metrics, rows}}.")
    return values

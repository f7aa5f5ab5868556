"""The papers' tables as trainings: which recipe each row is, and what the paper reports. The numbers are in YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

from unscene.errors import RecipeError, did_you_mean
from unscene.plain_yaml import read_yaml
from unscene.recipes import load_recipe
from unscene.runs.recipe import Recipe
from unscene.settings import settings_dataclass, typed_settings

TABLES = Path(__file__).with_name("paper_tables.yaml")
_FILE_NAME = re.compile(r"\w[\w. -]{0,99}")  # leads to no other folder


@settings_dataclass
class PaperRow:
    """One row: a training for each seed.

    The first lines of paper_tables.yaml explain the fields. `home` is the table and the row under which its trainings
    are kept: those of another table if the row shows that table's trainings again.
    """

    title: str
    data: str
    recipe: str
    home: tuple[str, str]
    full: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    ablation: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: int = 1
    minutes: float = 0.0
    stages: tuple[float, ...] = (1.0,)
    paper: dict[str, float] = field(default_factory=dict)

    def resolved(self, seed: int) -> Recipe:
        return load_recipe(self.recipe, {**self.changes, **self.ablation, "seed": seed})


@settings_dataclass
class PaperTable:
    """A table of a paper, and the kind of its figure: curves, scenes, slots, or none."""

    name: str
    title: str
    metrics: tuple[str, ...]
    rows: dict[str, PaperRow]
    figure: Literal["", "curves", "scenes", "slots"] = ""


def paper_tables(own: Path | None = None) -> dict[str, PaperTable]:
    """The tables of the package by name, and those of another YAML file."""
    values = _read(TABLES) | (_read(own) if own else {})

    def row(table: str, name: str) -> dict[str, Any]:
        try:
            fields = dict(values[table]["rows"][name])
            like = fields.pop("like", "")
            return (row(*like.split("/")) if like else {"home": [table, name]}) | fields
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise RecipeError(
                f"{own or TABLES}: row '{table}/{name}' must be a mapping, and its `like` the TABLE/ROW of another one."
            ) from None

    tables = {}
    for name, entry in values.items():
        resolved = {"name": name, **entry, "rows": {row_name: row(name, row_name) for row_name in entry["rows"]}}
        table = tables[name] = typed_settings(PaperTable, resolved, name, str(own or TABLES))
        for entered in table.rows.values():
            for word in (name, *entered.home, *(file.get("file", "") for file in entered.files.values())):
                if not _FILE_NAME.fullmatch(str(word)):
                    raise RecipeError(
                        f"{own or TABLES}: {str(word)[:200]!r} becomes the name of a file or folder, so it must have "
                        "1 to 100 letters, digits, spaces, '.', '-' or '_', and begin with no sign. Rename it."
                    )
    return tables


def find_table(word: str, full: bool = False) -> PaperTable:
    """The table of a name, or the first one of a YAML file; `full` takes the papers' recipes, under `NAME_full`."""
    own = Path(word) if word.endswith((".yaml", ".yml")) else None
    tables = paper_tables(own)
    name = next(iter(_read(own))) if own else word
    if name not in tables:
        raise RecipeError(f"there is no table '{name}', only {', '.join(tables)}.{did_you_mean(name, tables)}")
    table = tables[name]
    if not full:
        return table
    rows = {
        name: replace(
            row, home=(f"{row.home[0]}_full", row.home[1]), recipe=row.full, changes={}, files={}, minutes=0.0
        )
        for name, row in table.rows.items()
        if row.full
    }
    return replace(table, name=f"{table.name}_full", title=f"{table.title}, the papers' recipes", rows=rows)


def choose_rows(table: PaperTable, names: Sequence[str]) -> dict[str, PaperRow]:
    """The rows of these names, or all rows without a name. RecipeError: there is no such row, or no row at all."""
    if not table.rows:
        raise RecipeError(
            f"{table.name} has no rows. If you asked for --full: the rows of this table use the paper's recipes "
            "already, so leave it out."
        )
    for name in names:
        if name not in table.rows:
            known, hint = ", ".join(table.rows), did_you_mean(name, table.rows)
            raise RecipeError(f"{table.name} has no row '{name}', only {known}.{hint}")
    return {name: row for name, row in table.rows.items() if name in (names or table.rows)}


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as a file of tables ({error}).") from None
    tables = list(values.values()) if isinstance(values, dict) else []
    if not tables or not all(isinstance(table, dict) and isinstance(table.get("rows"), dict) for table in tables):
        raise RecipeError(f"{path} is not a file of tables: it must hold TABLE: {{title, metrics, rows}}.")
    return values

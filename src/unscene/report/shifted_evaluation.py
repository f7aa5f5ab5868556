"""What an evaluation under shifts holds: for each test set the model's scores, its slots and some scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unscene.report.results import ModelResult, Picture

SCHEMA = 1  # of shifts.json; raised whenever a name in it changes its meaning
NONE = "none"  # the name of the test set without a shift


@dataclass(frozen=True)
class ShiftResult:
    """One test set.

    Attributes:
        result: the evaluation, under the name of the shift.
        changes: of the settings of the data.
        slots: of the model as it was scored; None where it has no such number.
        note: where that is not the model's own number, or too few.
        scenes: the first scenes, see `unscene.report.comparison_figure`.
    """

    result: ModelResult
    changes: dict[str, Any]
    slots: int | None
    note: str
    scenes: Picture

    @property
    def name(self) -> str:
        """The name of the shift, or `NONE`."""
        return self.result.name


@dataclass(frozen=True)
class ShiftedEvaluation:
    """A model on its test set, and on shifted ones.

    Attributes:
        name: of the model's recipe.
        rows: `NONE` first, then the shifts.
    """

    name: str
    rows: tuple[ShiftResult, ...]

    @property
    def data(self) -> dict[str, Any]:
        """What the scenes without a shift are."""
        return self.rows[0].result.provenance["data"]

    def values(self, row: ShiftResult) -> dict[str, float | int | None]:
        """Every number of a row by its name; None is not applicable."""
        return {"slots": row.slots, "ari_fg_change": self._change(row), **row.result.metrics}

    def _change(self, row: ShiftResult) -> float | None:
        here, unshifted = row.result.metrics.get("ari_fg"), self.rows[0].result.metrics.get("ari_fg")
        return None if row is self.rows[0] or here is None or unshifted is None else here - unshifted

    def as_json(self) -> dict[str, Any]:
        """What shifts.json holds; pictures are left out."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "shifts": [
                {
                    "shift": row.name,
                    "changes": row.changes,
                    "note": row.note,
                    **self.values(row),
                    "evaluation": row.result.as_json(),
                }
                for row in self.rows
            ],
        }

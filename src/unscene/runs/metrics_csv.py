"""metrics.csv: a row every few steps, and columns that come as they are measured."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError
from unscene.files import write_text, writing

Series = dict[str, NDArray[np.float64]]  # name -> [P, ...] a row each time that it was measured


class MetricsTable:
    """Rows are appended as they come; a new column rewrites the file once, under another name first.

    Args:
        path: of the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns = ["step", "seconds"]
        if path.is_file():
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                self.columns = next(csv.reader(file), self.columns)

    def keep_until(self, step: int, repeat_validation: bool = False) -> None:
        """Drop the rows after a step, which a resumed run measures again, and incomplete rows.

        Args:
            step: the last one that stays.
            repeat_validation: whether the row of its validation goes as well.
        """
        if self.path.is_file():
            rows = [row for row in self._rows() if int(row["step"]) <= step]
            if repeat_validation:
                rows = [row for row in rows if int(row["step"]) < step or not row.get("val/score")]
            self._rewrite(rows)

    def last_seconds(self) -> float:
        """Training time of the last row; 0 without one."""
        return max((float(row["seconds"]) for row in self._rows() if row["seconds"]), default=0.0)

    def append(self, row: dict[str, float | int]) -> None:
        """Write one row; cells that it lacks stay empty.

        Raises:
            RunError: the disk is full or the place cannot be written; the table then is as it was.
        """
        new = [name for name in row if name not in self.columns]
        if new or not self.path.is_file():
            rows = self._rows()
            self.columns += new
            self._rewrite([*rows, row])
            return
        with writing(self.path):
            before = self.path.stat().st_size
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerow(row)
            except BaseException:  # Ctrl-C too
                os.truncate(self.path, before)
                raise

    def _rows(self) -> list[dict[str, Any]]:
        """Every whole row: a machine that lost its power may have left half of one."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
        return [row for row in rows if None not in row.values() and row["step"].isdigit()]

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


def read_columns(metrics_csv: Path) -> tuple[Series, NDArray[np.float64]]:
    """Read every column of a run's metrics.csv.

    Args:
        metrics_csv: columns `step`, `seconds`, then one a name; a cell is empty where nothing was measured.

    Returns:
        Name -> [P, 3], step and seconds of each finite value and itself; and the clock [P, 2], step and seconds of
        every row.

    Raises:
        DataError: the file is missing, has not these columns, or holds something that is no number.
    """
    try:
        with metrics_csv.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            rows = list(reader)
    except OSError as error:
        raise DataError(f"{metrics_csv} cannot be read ({error.strerror}). Name a run's metrics.csv.") from error
    if names[:2] != ["step", "seconds"]:
        raise DataError(f"{metrics_csv} must begin with the columns step, seconds, but has: {', '.join(names)}.")
    try:
        clock = np.array([[float(row["step"]), float(row["seconds"])] for row in rows]).reshape(-1, 2)
        columns = {name: _column(rows, name) for name in names[2:]}
    except (ValueError, TypeError) as error:  # a row that is cut short gives None
        raise DataError(f"{metrics_csv} is damaged ({error}): expected one number a cell, or none.") from error
    return columns, clock


def _column(rows: list[dict[str, str]], name: str) -> NDArray[np.float64]:
    cells = [(row["step"], row["seconds"], row[name]) for row in rows if row[name] not in ("", None)]
    points = np.array(cells, np.float64).reshape(-1, 3)
    return points[np.isfinite(points[:, 2])]

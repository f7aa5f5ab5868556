"""A run's metrics.csv, read: its columns, and the length, speed and validations of the training."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError
from unscene.runs.run_folder import RunFolder

Series = dict[str, NDArray[np.float64]]  # name -> [P, ...], one row for each measurement
_NO_POINTS = np.zeros((0, 3))


@dataclass(frozen=True)
class TrainingRecord:
    steps: int  # of the training, not of the best weights
    minutes: float  # wall-clock time, with the validations
    images_per_second: float | None  # median over the rows; None before the first one
    machine: str  # of the last start; empty where it is not known
    validation: NDArray[np.float64]  # [P, 2] seconds since the start, and foreground ARI of each validation with one


def read_training(run: RunFolder) -> TrainingRecord | None:
    """Read a run's metrics.csv and environment.json; None where nothing was measured yet."""
    if not run.metrics.is_file():
        return None
    columns, clock = read_columns(run.metrics)
    if not len(clock):
        return None
    speeds = columns.get("train/images_per_second", _NO_POINTS)[:, 2]
    start: dict[str, Any] = next(reversed(run.starts()), {})
    machine = start.get("gpu") or (f"{start.get('cpu')}, {start.get('threads')} threads" if start else "")
    return TrainingRecord(
        steps=int(clock[:, 0].max()),
        minutes=float(clock[:, 1].max()) / 60,
        images_per_second=float(np.median(speeds)) if len(speeds) else None,
        machine=str(machine),
        validation=columns.get("val/ari_fg", _NO_POINTS)[:, 1:],
    )


def read_columns(metrics_csv: Path) -> tuple[Series, NDArray[np.float64]]:
    """Read all columns: name -> [P, 3], step, seconds and value of each finite value; and [P, 2], step and seconds of
    every row. DataError: the file cannot be read, lacks the columns step and seconds, or a cell holds no number.
    """
    try:
        with metrics_csv.open(newline="", encoding="utf-8") as file:
            names, *rows = [*filter(None, csv.reader(file))] or [["nothing"]]
    except (OSError, ValueError, csv.Error) as error:  # ValueError: not UTF-8
        raise DataError(f"{metrics_csv} cannot be read as a table ({error}). Name a run's metrics.csv.") from error
    if names[:2] != ["step", "seconds"]:
        found = ", ".join(names)[:100]
        raise DataError(f"{metrics_csv} must begin with the columns step, seconds, not {found}. Restore or remove it.")
    try:
        cells = np.array([[cell or "nan" for cell in row] for row in rows], np.float64).reshape(len(rows), len(names))
        if not np.isfinite(cells[:, :2]).all():
            raise ValueError("a row lacks its step or seconds")
    except ValueError as error:  # also of rows of different lengths
        raise DataError(f"{metrics_csv} is damaged ({str(error)[:100]}): expected a number a cell, or none.") from error
    columns = {name: cells[np.isfinite(cells[:, i])][:, [0, 1, i]] for i, name in enumerate(names) if i > 1}
    return columns, cells[:, :2]

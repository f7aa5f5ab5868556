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
    """One training.

    Attributes:
        steps: steps of the training, not of the best weights.
        minutes: its wall-clock time, with the validations.
        images_per_second: median over the rows of its metrics.csv; None before the first one.
        machine: machine of its last start; empty where it is not known.
        validation: [P, 2] seconds since its start, and the foreground ARI of each validation that has one.
    """

    steps: int
    minutes: float
    images_per_second: float | None
    machine: str
    validation: NDArray[np.float64]


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
    every row. A DataError: the file is missing, lacks the columns step and seconds, or a cell holds no number.
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

"""What a run's folder says of its training: how long it took, how fast it went, and what each validation found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unscene.runs.metrics_csv import read_columns
from unscene.runs.run_folder import RunFolder

_NOTHING = np.zeros((0, 3))


@dataclass(frozen=True)
class TrainingRecord:
    """One training.

    Attributes:
        steps: of all of it, whichever step the best weights are of.
        minutes: its wall-clock, validations within.
        images_per_second: median over the rows of its metrics.csv, or None before the first one.
        machine: what it ran on, at its last start; empty where that was not written down.
        validation: [P, 2] seconds since its start, and the foreground ARI of each validation that has one.
    """

    steps: int
    minutes: float
    images_per_second: float | None
    machine: str
    validation: NDArray[np.float64]


def read_training(run: RunFolder) -> TrainingRecord | None:
    """Read a run's metrics.csv and environment.json; None where nothing was measured yet.

    Raises:
        DataError: metrics.csv is damaged.
        CheckpointError: environment.json is damaged.
    """
    if not run.metrics.is_file():
        return None
    columns, clock = read_columns(run.metrics)
    if not len(clock):
        return None
    speeds = columns.get("train/images_per_second", _NOTHING)[:, 2]
    return TrainingRecord(
        steps=int(clock[:, 0].max()),
        minutes=float(clock[:, 1].max()) / 60,
        images_per_second=float(np.median(speeds)) if len(speeds) else None,
        machine=_machine(run),
        validation=columns.get("val/ari_fg", _NOTHING)[:, 1:],
    )


def _machine(run: RunFolder) -> str:
    starts = run.starts()
    if not starts:
        return ""
    return str(starts[-1].get("gpu") or f"{starts[-1].get('cpu')}, {starts[-1].get('threads')} threads")

"""A run's folder: it explains itself, is never overwritten, and is written whole or not at all.

    recipe.yaml        every setting
    environment.json   versions, commit, hardware, command, one entry a start or resume
    metrics.csv        a row every few steps: `step`, `seconds`, then what was measured
    tensorboard/       the same for TensorBoard
    checkpoints/       last.ckpt (by the clock), best.ckpt (by validation)
    samples/           figures: input with boxes, reconstruction, masks
    health.txt         the verdict of the last validation
    weights.safetensors  the best weights alone, ready for `unscene.load`
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from unscene.errors import CheckpointError, RunError


class RunFolder:
    """Paths and files of one run. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.csv"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.samples = path / "samples"
        self.health = path / "health.txt"
        self.weights = path / "weights.safetensors"

    @classmethod
    def create(cls, path: Path, recipe_text: str) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            RunError: something is there already, or the place cannot be written.
        """
        run = cls(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path} is not empty, and a run is never overwritten. Go on with it by `unscene train --resume {path}`, "
                "or name another folder with --out."
            )
        with writing(path):
            for folder in (path, run.checkpoints, run.samples):
                folder.mkdir(parents=True, exist_ok=True)
        write_text(run.recipe, recipe_text)
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the folder of a run that exists.

        Raises:
            CheckpointError: it is no run's folder.
        """
        if not (path / "recipe.yaml").is_file():
            what = "does not exist" if not path.exists() else "holds no recipe.yaml, so it is no run's folder"
            raise CheckpointError(f"{path} {what}. Name the folder that `unscene train` wrote, for instance runs/NAME.")
        return cls(path)

    def recipe_values(self) -> dict[str, Any]:
        """The recipe as plain values."""
        values = yaml.safe_load(self.recipe.read_text())
        if not isinstance(values, dict):
            raise CheckpointError(f"{self.recipe} is damaged: it holds no settings.")
        return values

    def add_environment(self, entry: dict[str, Any]) -> None:
        """Append what this start ran on to environment.json."""
        entries = json.loads(self.environment.read_text()) if self.environment.is_file() else []
        write_text(self.environment, json.dumps([*entries, entry], indent=2) + "\n")


class MetricsTable:
    """metrics.csv: rows are appended as they come; a new column rewrites the file once, under another name first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns = ["step", "seconds"]
        if path.is_file():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), self.columns)

    def keep_until(self, step: int) -> None:
        """Drop the rows after a step: a resumed run measures them again."""
        if self.path.is_file():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row.get("step") and int(row["step"]) <= step]
            self._rewrite(rows)

    def last_seconds(self) -> float:
        """Training time of the last row; 0 without one."""
        if not self.path.is_file():
            return 0.0
        with self.path.open(newline="") as file:
            return max((float(row["seconds"]) for row in csv.DictReader(file) if row.get("seconds")), default=0.0)

    def append(self, row: dict[str, float | int]) -> None:
        """Write one row; cells that it lacks stay empty."""
        new = [name for name in row if name not in self.columns]
        if new or not self.path.is_file():
            rows: list[dict[str, Any]] = []
            if self.path.is_file():
                with self.path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
            self.columns += new
            self._rewrite([*rows, row])
            return
        with writing(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it.

    Raises:
        RunError: the disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a failed write into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"{path}: the disk is full. Free some space, or name a folder on another disk.") from error
        raise RunError(f"{path} cannot be written ({error.strerror or error}).") from error

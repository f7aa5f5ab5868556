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

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from unscene.errors import CheckpointError, RecipeError, RunError
from unscene.files import lock, remove_litter, removed_if_empty, write_text, writing
from unscene.plain_yaml import read_yaml


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
        self.restarts = path / "restarts.txt"
        self.weights = path / "weights.safetensors"

    @classmethod
    def create(cls, path: Path, recipe_text: str) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            RunError: something is there already, or the place cannot be written.
        """
        run = cls(path)
        with writing(path):
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is a file; a run needs a folder. Name another one with --out.")
            if path.is_dir() and any(path.iterdir()):
                hint = "name another one with --out"
                if run.recipe.is_file():
                    hint = f"resume it with `unscene train --resume {path}`, or {hint}"
                raise RunError(f"{path} is not empty, and a run is never overwritten: {hint}.")
            path.mkdir(parents=True, exist_ok=True)
            write_text(run.recipe, recipe_text)  # first: with it the folder is a run
            for folder in (run.checkpoints, run.samples):
                folder.mkdir(exist_ok=True)
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

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other trainings out of the folder for as long as this lasts; the folder is created if it is missing.

        What a killed training left half-written is removed, and at the end what this one wrote before its first row.

        Raises:
            RunError: another process trains into it, or the place cannot be written.
        """
        with ExitStack() as stack:
            with writing(self.path):
                stack.enter_context(removed_if_empty(self.path))
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(self.path))
                for folder in (self.path, self.checkpoints, self.samples):
                    remove_litter(folder)
                fresh = not any(self.path.iterdir())
            try:
                yield
            finally:
                if fresh and not self.metrics.exists() and not self.last.exists():
                    self._clear()

    def _clear(self) -> None:
        for folder in (self.checkpoints, self.samples, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.recipe, self.environment):
            file.unlink(missing_ok=True)

    def recipe_values(self) -> dict[str, Any]:
        """The recipe as plain values.

        Raises:
            CheckpointError: recipe.yaml is damaged.
        """
        try:
            values = read_yaml(self.recipe.read_text(encoding="utf-8"), "its text")
        except (OSError, UnicodeDecodeError, RecipeError) as error:
            raise CheckpointError(f"{self.recipe} is damaged: {error}") from None
        if not isinstance(values, dict):
            raise CheckpointError(f"{self.recipe} is damaged: it holds no settings.")
        return values

    def starts(self) -> list[dict[str, Any]]:
        """What environment.json says of every start and resume; empty where nothing was written yet.

        Raises:
            CheckpointError: environment.json is damaged.
        """
        if not self.environment.is_file():
            return []
        try:
            entries = json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.environment} is damaged ({error}). Mend or remove it.") from None
        return entries if isinstance(entries, list) else [entries]

    def add_environment(self, entry: dict[str, Any]) -> None:
        """Append what this start ran on to environment.json."""
        write_text(self.environment, json.dumps([*self.starts(), entry], indent=2) + "\n")

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

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unscene.errors import CheckpointError, RecipeError, RunError
from unscene.plain_yaml import read_yaml

try:
    import fcntl
except ImportError:  # Windows: two trainings into one folder are not told apart
    fcntl = None  # type: ignore[assignment]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
                cure = "name another one with --out"
                if run.recipe.is_file():
                    cure = f"go on with it by `unscene train --resume {path}`, or {cure}"
                raise RunError(f"{path} is not empty, and a run is never overwritten: {cure}.")
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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other trainings out of the folder for as long as this lasts; it is made if need be.

        The system frees it however the process ends. What a training wrote before its first row is removed again.

        Raises:
            RunError: another process trains into it, or the place cannot be written.
        """
        with writing(self.path):
            missing = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            fresh = not any(self.path.iterdir())
            try:
                yield
            finally:
                if fresh and not self.metrics.exists() and not self.last.exists():
                    self._clear(missing)

    def _clear(self, altogether: bool) -> None:
        for folder in (self.checkpoints, self.samples, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.recipe, self.environment):
            file.unlink(missing_ok=True)
        if altogether:
            with suppress(OSError):  # something else is in it
                self.path.rmdir()

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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock of the system on the folder itself, so that no file of it can be left behind."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder} is being trained by another process. Wait for it, stop it (Ctrl-C keeps a checkpoint), or "
                "name another folder with --out."
            ) from None
        except OSError:  # a disk that knows no locks
            pass
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, then rename it.

    Raises:
        RunError: the disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a failed write into an error that says what to do."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise RunError(f"{path}: the disk is full. Free some space, or name a folder on another disk.") from error
        raise RunError(f"{path} cannot be written ({error.strerror or error}).") from error

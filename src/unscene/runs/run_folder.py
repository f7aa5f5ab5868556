"""The folder of a run. No training overwrites another one's; no kill leaves half a file.

recipe.yaml        every setting
environment.json   versions, commit, hardware, command, one entry a start or resume
metrics.csv        a row every few steps: `step`, `seconds`, then what was measured
tensorboard/       the same for TensorBoard
checkpoints/       last.ckpt (by the clock), best.ckpt (by validation)
samples/           figures: input with boxes, reconstruction, masks
health.txt         the verdict of the last validation
restarts.txt       one line for each restart after a collapse
weights.safetensors  the best weights alone, ready for `unscene.load`
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distributions
from itertools import count
from pathlib import Path
from typing import Any

import torch

from unscene.errors import CheckpointError, RecipeError, RunError
from unscene.files import lock, remove_litter, removed_if_empty, write_text, writing
from unscene.plain_yaml import read_yaml

PACKAGES = ("unscene", "torch", "torchvision", "lightning", "numpy", "scipy", "scikit-learn", "pycocotools", "h5py")


class RunFolder:
    """Paths and files of one run; `create` makes the folder of a new run, `open` checks that of an earlier one."""

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
        """Make the folder of a new run. RunError: it holds more than a process left that was killed at its start."""
        run = cls(path)
        with writing(path):
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is a file; a run needs a folder. Name another one with --out.")
            if path.is_dir() and not run.is_unused():
                hint = "name another one with --out"
                if run.recipe.is_file():
                    hint = f"resume it with `unscene train --resume {shlex.quote(str(path))}`, or {hint}"
                raise RunError(f"{path} is not empty, and a run is never overwritten: {hint}.")
            path.mkdir(parents=True, exist_ok=True)
            write_text(run.recipe, recipe_text)  # first: with it the folder is a run
        run.make_folders()
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the folder of a run. CheckpointError: it is none."""
        run = cls(path)
        if run.recipe.is_file():
            return run
        if path.is_dir() and run.is_unused():
            raise CheckpointError(
                f"{path} holds no recipe.yaml yet, so there is nothing to resume. Start the training with "
                f"`unscene train RECIPE --out {path}`."
            )
        what = "holds no recipe.yaml, so it is no run's folder" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}. Name the folder that `unscene train` wrote, for instance runs/NAME.")

    def is_unused(self) -> bool:
        """Whether the folder holds no file but temporary ones, and no folder but those of a run."""
        folders = (self.path, self.checkpoints, self.samples, self.tensorboard)
        others = (path for path in self.path.rglob("*") if path not in folders)
        return all(path.parent in folders and path.match(".*.part") for path in others)

    def make_folders(self) -> None:
        """Make the folders of checkpoints and samples where they are missing."""
        for folder in (self.checkpoints, self.samples):
            with writing(folder):
                folder.mkdir(exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder against other trainings until the block ends. The folder is created if it is missing.

        Temporary files of a killed training are removed. If this training writes neither a row nor a checkpoint, all
        its files are removed at the end.
        """
        with contextlib.ExitStack() as stack:
            with writing(self.path):
                stack.enter_context(removed_if_empty(self.path))
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(self.path))
                for path in (self.checkpoints, self.samples, self.tensorboard, self.metrics):
                    if path.is_symlink():
                        raise RunError(f"{path} is a link to {path.resolve()}. Move that here: a run is one folder.")
                for folder in (self.path, self.checkpoints, self.samples):
                    remove_litter(folder)
                unused = self.is_unused()
            try:
                yield
            finally:
                if unused and not self.metrics.exists() and not self.last.exists():
                    for folder in (self.checkpoints, self.samples, self.tensorboard):
                        shutil.rmtree(folder, ignore_errors=True)
                    for file in (self.environment, self.recipe):  # recipe.yaml last: until then the folder is a run
                        file.unlink(missing_ok=True)

    def recipe_values(self) -> dict[str, Any]:
        try:
            values = read_yaml(self.recipe.read_text(encoding="utf-8"), "its text")
        except (OSError, UnicodeDecodeError, RecipeError) as error:
            raise CheckpointError(f"{self.recipe} is damaged: {error}") from None
        if not isinstance(values, dict):
            raise CheckpointError(f"{self.recipe} is damaged: it holds no settings.")
        return values

    def starts(self) -> list[dict[str, Any]]:
        """The entries of environment.json, one for each start and resume; empty before the first one."""
        if not self.environment.is_file():
            return []
        try:
            entries = json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.environment} is damaged ({error}). Mend or remove it.") from None
        return entries if isinstance(entries, list) else [entries]

    def add_environment(self, entry: dict[str, Any]) -> None:
        """Append the entry of this start to environment.json."""
        write_text(self.environment, json.dumps([*self.starts(), entry], indent=2) + "\n")


def new_run_folder(recipe: str | Path) -> Path:
    """The first of runs/NAME, runs/NAME-2, ... that does not exist; NAME is `rmonet_unet-images`, or a file's stem."""
    own = Path(recipe)
    name = own.stem if own.suffix in (".yaml", ".yml") else str(recipe).replace("/", "-")
    names = (f"{name}-{number}" if number > 1 else name for number in count(1))
    return next(path for path in (Path("runs", name) for name in names) if not path.exists())


def describe_machine() -> dict[str, Any]:
    """Versions, commit, hardware, command and date, flat and ready for JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": git_commit(),
        "python": platform.python_version(),
        **{name: next((found.version for found in distributions(name=name)), None) for name in PACKAGES},
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of this source tree, with `-dirty` after it when files differ; None for an installed package.

    The ledger in results/ does not count: `reproduce` itself writes there.
    """
    root = Path(__file__).resolve().parents[3]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if (root / ".git").exists():
            commit = git("describe", "--always", "--abbrev=12").strip()
            return commit + ("-dirty" if git("diff", "--name-only", "HEAD", "--", ".", ":!results") else "")
    return None

"""Checkpoints: last.ckpt to resume from, best.ckpt of the best validation. A file is on the disk whole or not at all.

Around a validation last.ckpt is written twice: before it, with `validation_due`, and after its row and best.ckpt are
written. So wherever a process is killed, a resumed run repeats what is not certain, and row and best.ckpt agree.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unscene.errors import TrainingError
from unscene.files import write_bytes
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import read_checkpoint
from unscene.training.loss import RESUME_HINT


@dataclass
class Progression:
    """How far a training has come.

    Attributes:
        step: steps taken.
        first_step: where this attempt began; later than 0 after a restart.
        restarts: one line for each restart.
        validation_due: whether the validation of this step is not complete.
    """

    step: int = 0
    first_step: int = 0
    restarts: list[str] = field(default_factory=list)
    validation_due: bool = False

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any]) -> Progression:
        """Return how far a checkpoint is."""
        return cls(**{each.name: content[each.name] for each in fields(cls)})

    @property
    def attempt_step(self) -> int:
        """Steps since the weights were drawn; schedules and annealing follow it."""
        return self.step - self.first_step


def checkpoint_content(
    progression: Progression,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    log: dict[str, Any],
    best_score: float | None,
) -> dict[str, Any]:
    """Return everything that a resumed training needs, as tensors and plain values.

    The random state is that of the first process and of every other: all draw the noise of the whole batch (see
    `unscene.distributed.noise`), so a run may be resumed by any number of processes.

    Raises:
        TrainingError: a weight is not finite.
    """
    weights = model.state_dict()
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise TrainingError(
            f"step {progression.step:,}: {len(broken)} of the weights are not finite, '{broken[0]}' among them, so no "
            f"checkpoint was written. {RESUME_HINT}"
        )
    random_state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_state["cuda"] = torch.cuda.get_rng_state()
    return {
        **asdict(progression),
        "model": weights,
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random_state": random_state,
        "log": log,
        "best_score": best_score,
    }


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint.

    Raises:
        RunError: the disk is full or the folder cannot be written; a checkpoint that is there stays.
    """
    file = io.BytesIO()
    torch.save(content, file)
    write_bytes(path, file.getbuffer())


def read_best_score(run: RunFolder) -> float | None:
    """Return the score of best.ckpt, which holds it itself; None without a best.ckpt.

    Raises:
        CheckpointError: best.ckpt is damaged.
    """
    return float(read_checkpoint(run.best)["best_score"]) if run.best.is_file() else None


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Restore the random state of a checkpoint."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

"""Checkpoints: last.ckpt to resume from, best.ckpt of the kept weights. No kill leaves half a file.

A validation writes last.ckpt twice: before it, with `validation_due`, and after its row and best.ckpt. So a resumed run
repeats a validation that a kill interrupted, and its row and best.ckpt agree.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unscene.data import Source
from unscene.errors import TrainingError
from unscene.files import write_bytes
from unscene.runs.weights import sealed
from unscene.training.step import NOT_FINITE_HINT


@dataclass
class Progression:
    step: int = 0  # steps taken
    first_step: int = 0  # of this attempt; later than 0 after a restart
    restarts: list[str] = field(default_factory=list)  # one line for each
    validation_due: bool = False  # the validation of this step is not complete
    validations: list[list[float]] = field(default_factory=list)  # of this attempt, higher is better in each column
    observed: dict[str, Tensor] = field(default_factory=dict)  # means of `Losses.observed` over the last batch
    scenes: str = ""  # how many training and validation have, with a hash of the files' names where they are files

    @classmethod
    def from_sources(cls, *sources: Source) -> Progression:
        described = []
        for source in sources:
            paths = (*getattr(source, "paths", ()), *getattr(source, "skipped", ()))
            names = sorted(Path(path).name for path in paths)  # COCO's paths are texts
            shown = hashlib.sha256("/".join(names).encode(errors="replace")).hexdigest()[:8]
            described.append(f"{len(names):,} images (names {shown})" if names else f"{len(source):,} scenes")
        return cls(scenes=" and ".join(described))

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any]) -> Progression:
        """Return the progression of a checkpoint; an earlier version's lacks some fields. TypeError: of a value."""
        known = {item.name: content[item.name] for item in fields(cls) if item.name in content}
        for name, value in known.items():
            if not isinstance(value, type(getattr(cls(), name))):
                raise TypeError(f"{name} is {value!r}")
        return cls(**known)

    @property
    def attempt_step(self) -> int:
        """Steps since the initial weights; schedules and annealing follow it."""
        return self.step - self.first_step

    def is_settled(self, patience: int) -> bool:
        """Whether no column of the last `patience` validations has a best value 2 % better than those before."""
        earlier, recent = self.validations[:-patience], self.validations[-patience:]
        if not patience or not earlier:
            return False
        best = [[max(column) for column in zip(*part, strict=True)] for part in (earlier, recent)]
        return all(new <= old + 0.02 * abs(old) for old, new in zip(*best, strict=True))


def checkpoint_content(
    progression: Progression,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    log: dict[str, Any],
    best_score: float | None,
) -> dict[str, Any]:
    """Return all that a resumed training needs, as tensors and plain values; a TrainingError if a weight is not finite.

    All processes have the same random state (see `unscene.distributed.processes`), so any number of them may resume.
    """
    weights = model.state_dict()
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise TrainingError(
            f"step {progression.step:,}: {len(broken)} of the weights are not finite, '{broken[0]}' among them, so no "
            f"checkpoint was written. {NOT_FINITE_HINT}"
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
    """Write a checkpoint; a RunError (disk full, no permission) leaves the earlier one as it was."""
    file = io.BytesIO()
    torch.save(content, file)
    write_bytes(path, sealed(file.getbuffer()))


def set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

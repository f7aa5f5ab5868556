"""Checkpoints: last.ckpt to go on from, best.ckpt of the best validation; each is on the disk whole or not at all."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from unscene.errors import TrainingError
from unscene.files import write_bytes
from unscene.runs.run_folder import RunFolder
from unscene.training.callbacks.metrics_log import MetricsLog
from unscene.training.module import SceneModule

SCORE = "val/score"


class WholeFiles(TorchCheckpointIO):
    """How Lightning puts a checkpoint on the disk: beside its place, then renamed. Its own way is by another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            RunError: the disk is full or the place cannot be written; a checkpoint that is there stays.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer())


def save_checkpoint(trainer: lightning.Trainer, run: RunFolder) -> None:
    """Write last.ckpt.

    Raises:
        TrainingError: a weight is not finite; the last checkpoint, which is from before it, stays.
        RunError: the disk is full or the place cannot be written.
    """
    module = trainer.lightning_module
    assert isinstance(module, SceneModule)
    broken = [name for name, value in module.model.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise TrainingError(
            f"step {trainer.global_step:,}: {len(broken)} of the weights are not finite, '{broken[0]}' among them, so "
            f"no checkpoint was written. {module.HOW_TO_GO_ON}"
        )
    trainer.save_checkpoint(run.last)


class BestCheckpoint(Callback):
    """Keeps the checkpoint of the best validation so far as best.ckpt.

    `Clock` writes last.ckpt just before a validation, so that the best one is a copy of it.

    Args:
        run: whose checkpoints.
        log: which knows the best score of the run so far.
    """

    def __init__(self, run: RunFolder, log: MetricsLog) -> None:
        self.run, self.metrics_log = run, log

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look up the score to beat."""
        self.best = self.metrics_log.table.best(SCORE) if self.run.best.is_file() else None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the checkpoint if it is better, in the first process."""
        assert isinstance(pl_module, SceneModule)
        score = pl_module.results[SCORE]
        if trainer.is_global_zero and math.isfinite(score) and (self.best is None or score > self.best):
            write_bytes(self.run.best, self.run.last.read_bytes())
            self.best = score

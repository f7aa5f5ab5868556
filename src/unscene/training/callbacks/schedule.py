"""What a training does by the clock: validate, write a checkpoint, and end."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from unscene.runs.run_folder import RunFolder
from unscene.runs.trainer_settings import TrainerSettings
from unscene.training.callbacks.checkpoints import save_checkpoint
from unscene.training.signals import Interruption

NEVER = 2**62  # steps between two validations, as far as Lightning counts them


class Clock(Callback):
    """Decides after every step, alike in all processes: Lightning's own clocks differ between them, and then they wait
    for each other for ever.

    Whatever ends or halts the training, last.ckpt is written first, between two steps, where everything is whole. The
    last step is validated; after Ctrl-C nothing is, since somebody waits.

    Args:
        run: whose checkpoints.
        settings: how often.
        interruption: whether Ctrl-C was pressed.
    """

    def __init__(self, run: RunFolder, settings: TrainerSettings, interruption: Interruption) -> None:
        self.run, self.settings, self.interruption = run, settings, interruption

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clocks."""
        self.began = self.validated = self.saved = time.monotonic()
        self.interruption.catch()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Decide, and write."""
        now, settings = time.monotonic(), self.settings
        late = 0 < settings.max_minutes * 60 <= now - self.began
        interrupted, ended, validate, save = self._agreed(
            trainer,
            self.interruption.asked,
            late or trainer.global_step >= trainer.max_steps,
            now - self.validated >= settings.validate_minutes * 60,
            now - self.saved >= settings.checkpoint_minutes * 60,
        )
        if interrupted or ended or validate or save:
            save_checkpoint(trainer, self.run)
            self.saved = time.monotonic()
        trainer.val_check_batch = 1 if validate else NEVER
        if interrupted:
            trainer.limit_val_batches = 0
        trainer.should_stop = trainer.should_stop or interrupted or ended  # Lightning validates before it stops

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count from here to the next one."""
        self.validated = time.monotonic()

    def _agreed(self, trainer: lightning.Trainer, *wishes: bool) -> list[bool]:
        """What any of the processes wishes."""
        if trainer.world_size == 1:
            return list(wishes)
        counted = torch.tensor(wishes, dtype=torch.float32, device=trainer.strategy.root_device)
        return [value > 0 for value in trainer.strategy.reduce(counted, reduce_op="sum").tolist()]

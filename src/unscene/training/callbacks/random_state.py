"""The random numbers in the checkpoint: a resumed training draws what the unbroken one would have drawn."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

State = dict[str, torch.Tensor]


class RandomState(Callback):
    """Keeps the generators' states, as tensors: a checkpoint holds nothing that could run.

    They are those of the first process, and of every other: all draw the noise of the whole batch (see
    `blocks.shared_noise`), so that any number of processes may go on where another left off.
    """

    def __init__(self) -> None:
        self.state: State | None = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the states."""
        state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        checkpoint["random_state"] = [state]

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep them until the first step, since the data loader draws before it."""
        states = checkpoint.get("random_state")
        if isinstance(states, dict):  # as unscene wrote it at first
            states = [states]
        if states:
            self.state = states[0]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put it back, once."""
        if self.state is not None:
            torch.set_rng_state(self.state["cpu"].cpu())
            if "cuda" in self.state and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.state["cuda"].cpu())
            self.state = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember where a validation begins."""
        self.after_step = torch.get_rng_state()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go back there: PyTorch's loader drew a number, and the training must not depend on when the clock struck."""
        torch.set_rng_state(self.after_step)
